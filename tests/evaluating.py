"""An evaluation in one of several processes: here, where a spawned process can import it."""

from pathlib import Path

import pytest
import torch
from heads import subject_of

from coca_video.checkpoint import load_checkpoint
from coca_video.errors import InputError
from coca_video.evaluation.benchmark import BenchmarkConfig, evaluate_benchmark
from coca_video.evaluation.subject import CocaSubject


def write_evaluation(path: Path, manifest: Path) -> Path:
    """As a YAML file: retrieval among the four clips of the emoji benchmark's without a skin tone."""
    path.write_text(
        f"manifest: {manifest}\nretrieval: {{subset: 'skintone='}}\nloading: {{num_workers: 0}}\n"
    )
    return path


def evaluate(run: Path, config: BenchmarkConfig, output: Path, rank: int) -> None:
    """The first process alone has the outcome; what each has encoded is written beside it."""
    subject = CountingSubject(load_checkpoint(run), torch.device("cpu"))
    outcome = evaluate_benchmark(subject, config, output=output)
    assert (outcome is None) == (rank != 0)
    (output / f"encoded-{rank}").write_text(str(subject.num_clips))


def evaluate_apart(run: Path, config: BenchmarkConfig, folder: Path, rank: int) -> None:
    """As on machines with a disk each; nothing is encoded."""
    subject = CountingSubject(load_checkpoint(run), torch.device("cpu"))
    with pytest.raises(InputError, match=f"is not that of process {1 - rank}; all processes must share"):
        evaluate_benchmark(subject, config, output=folder / f"machine-{rank}")
    assert subject.num_clips == 0


class CountingSubject(CocaSubject):
    num_clips = 0  # encoded

    def encode(self, clips, origins):
        self.num_clips += len(clips)
        return super().encode(clips, origins)


def evaluate_head(folder: Path, config: BenchmarkConfig, output: Path, rank: int) -> None:
    outcome = evaluate_benchmark(subject_of(folder), config, output=output)
    assert (outcome is None) == (rank != 0)
