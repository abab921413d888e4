"""The root configuration of each command; its parts are beside the classes they configure."""

from dataclasses import dataclass, field
from typing import Any

from coca_video.data.loader import DataConfig
from coca_video.evaluation.benchmark import BenchmarkConfig
from coca_video.models.coca import CoCaConfig
from coca_video.probes.probe import ProbeConfig
from coca_video.training.loop import LoopConfig


@dataclass
class TrainConfig:
    data: DataConfig
    output: str  # the run's folder: logs and checkpoints; an unfinished run in it is continued
    model: CoCaConfig = field(default_factory=CoCaConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    init: str | None = None  # start from this checkpoint (anything `coca_video.load` takes) and its tokenizer
    tokenizer: str | None = None  # a tokenizer.json or CLIP's vocabulary; default: learned from the texts
    device: str = "auto"  # auto = cuda where there is one
    # Of checkpoints on the way (loop.evaluate_every): names of configs/evaluate, or YAML files of that form
    evaluations: list[str] = field(default_factory=list)
    task: Any = None  # task=NAME: what is learned in place of CoCa's own losses, see `coca_video.tasks`


@dataclass
class EvaluateConfig:
    checkpoint: str  # what `coca_video.load` takes, or "open_clip:MODEL/WEIGHTS"
    evaluate: BenchmarkConfig
    output: str | None = (
        None  # result.json's folder; default: evaluate/, then the manifest's name, in the run
    )
    merged_per_block: int = 0  # patches that each block of the image encoder merges: faster, approximate
    device: str = "auto"


@dataclass
class ProbeCommandConfig:
    checkpoint: str  # what `coca_video.load` takes; its encoder stays as it is
    probe: ProbeConfig
    output: str | None = None  # result.json's folder; default: probe/TEST-KIND in the run
    device: str = "auto"
