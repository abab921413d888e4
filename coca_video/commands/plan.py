"""`tools/plan.py`: which settings of a recipe fit a number of accelerators, and how long the run takes."""

import argparse
import json
from dataclasses import dataclass, fields, replace
from math import ceil

from coca_video.cli import PARTIAL
from coca_video.commands.task_runs import load_train_config
from coca_video.config import TrainConfig
from coca_video.data.mixing import Mixing
from coca_video.data.sources import SourceConfig
from coca_video.errors import InputError
from coca_video.models.coca import CoCaConfig
from coca_video.planning.devices import accelerator_of
from coca_video.planning.flops import StepShape
from coca_video.planning.plan import GB, Cluster, Phase, Run, as_figures, as_text, make_plan
from coca_video.training.compute import Accumulation, Precision
from coca_video.training.optim import group_of
from coca_video.training.regimes import plan_phases, reached_parameters


@dataclass
class PlanSettings:
    """What a plan is told beside the recipe."""

    devices: int = 1
    memory: float = 80.0  # GB a device
    device: str = "h100"
    utilisation: float = 0.4
    reserve: float = 0.1
    price_per_hour: float | None = None
    text_length: float | None = None  # tokens on average, begin and end included; None = the context's length

    def __post_init__(self) -> None:
        """Raises InputError, naming the key."""
        for name in ("devices", "memory", "price_per_hour", "text_length"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name}={value:g}: must be positive")
        if not 0 < self.utilisation <= 1:
            raise InputError(f"utilisation={self.utilisation:g}: a share is needed, above 0 and at most 1")
        if not 0 <= self.reserve < 1:
            raise InputError(f"reserve={self.reserve:g}: a share is needed, at least 0 and below 1")


KINDS = {field.name: int if field.name == "devices" else float for field in fields(PlanSettings)} | {
    "device": str
}


def main() -> int:
    args = _parser().parse_args()
    settings, others = _separated(args.settings)
    config = load_train_config(others)
    if config.task:
        raise InputError(f"task={config.task.name}: only CoCa's own losses are planned for")
    try:
        plan = make_plan(_run(config, settings), _cluster(config, settings))
    except InputError:
        raise
    except ValueError as error:  # sizes that do not fit each other
        raise InputError(f"model: {error}") from error
    print(json.dumps(as_figures(plan), indent=1) if args.json else as_text(plan))
    return 0 if plan.best else PARTIAL


def _separated(arguments: list[str]) -> tuple[PlanSettings, list[str]]:
    """The plan's own settings, and those of the training run."""
    own, others = {}, []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in KINDS:
            others.append(argument)
            continue
        try:
            own[key] = KINDS[key](value)
        except ValueError as error:
            kind = "whole number" if KINDS[key] is int else "number"
            raise InputError(f"{argument}: a {kind} is needed") from error
    return PlanSettings(**own), others


def _cluster(config: TrainConfig, settings: PlanSettings) -> Cluster:
    accelerator = accelerator_of(settings.device)
    return Cluster(
        settings.devices,
        memory=settings.memory * GB,
        peak=getattr(accelerator, config.loop.compute.precision.value),
        utilisation=settings.utilisation,
        reserve=settings.reserve,
        price_per_hour=settings.price_per_hour,
    )


def _run(config: TrainConfig, settings: PlanSettings) -> Run:
    loop = config.loop
    return Run(
        config.model,
        _phases(config, settings),
        optimizer=loop.optimizer.name.value,
        averaged=loop.ema_decay > 0,
        bfloat16=loop.compute.precision is Precision.bfloat16,
        captioning=loop.loss.caption_weight > 0,
        contrastive=loop.loss.contrastive_weight > 0,
        ring=loop.loss.ring,
        separate=loop.compute.accumulation is Accumulation.separate,
        encoded=config.data.token_cache is not None,
        frame_size=config.data.frame_size,
    )


def _phases(config: TrainConfig, settings: PlanSettings) -> list[Phase]:
    """Those of the tuning regime, each with the batches that it reads; nothing of the data is opened."""
    loop, batches = config.loop, _batches(config, settings)
    num_steps = _num_steps(config)
    reached = reached_parameters(_shallow(config.model), loop.loss)
    phases = []
    for phase in plan_phases(config.model, loop.tuning, num_steps=num_steps, reached=reached):
        trained = frozenset(group_of(name) for name in phase.trained)
        phases += [Phase(round(phase.num_steps * share), trained, batch) for batch, share in batches]
    return [phase for phase in phases if phase.num_steps]


def _shallow(model: CoCaConfig) -> CoCaConfig:
    """With one layer of each kind: the losses reach the same groups, as is found in a moment."""
    return replace(
        model,
        image=replace(model.image, num_layers=1),
        text=replace(model.text, num_unimodal_layers=1, num_multimodal_layers=1),
        temporal=replace(model.temporal, num_layers=1),
    )


def _num_steps(config: TrainConfig) -> int:
    loop = config.loop
    if loop.num_epochs is not None:
        hint = "how many samples there are is known to training alone; give loop.num_samples"
        raise InputError(f"loop.num_epochs={loop.num_epochs}: cannot be planned: {hint}")
    if loop.num_samples is None:
        return loop.num_steps
    return ceil(loop.num_samples / config.data.mean_batch_size)


def _batches(config: TrainConfig, settings: PlanSettings) -> list[tuple[StepShape, float]]:
    """Every kind of batch, and the share of steps that read one."""
    sources = config.data.sources
    if config.data.mixing is Mixing.together:
        return [(_shape(sources, config, settings), 1.0)]
    total = sum(source.weight for source in sources)
    return [(_shape([source], config, settings), source.weight / total) for source in sources]


def _shape(sources: list[SourceConfig], config: TrainConfig, settings: PlanSettings) -> StepShape:
    num_clips, context = sum(source.batch_size for source in sources), config.model.text.context_length
    length = settings.text_length or context
    if not 2 <= length <= context:
        allowed = f"from 2 to the model's context of {context} tokens"
        raise InputError(f"text_length={length:g}: {allowed}")
    return StepShape(
        num_clips,
        num_frames=sum(source.batch_size * source.num_frames for source in sources),
        longest_clip=max(source.num_frames for source in sources),
        num_tokens=round(length * num_clips),
        longest_text=context,
        patch_dropout=config.loop.patch_dropout,
    )


def _parser() -> argparse.ArgumentParser:
    settings, model = PlanSettings(), "recipe=emoji/image model=coca_2b devices=64 memory=80"
    parser = argparse.ArgumentParser(
        description="Which settings of a training recipe fit a number of accelerators, fastest first, and how"
        " long the run takes. No file of the data is opened. Exit code 0: something fits; 3: nothing does.",
        epilog=f"example: {model}. Beside training's keys: devices (default {settings.devices}), memory"
        f" (GB each, {settings.memory:g}), device ({settings.device}), utilisation (share of its peak that is"
        f" reached, {settings.utilisation:g}), reserve (share of the memory that is"
        f" left free, {settings.reserve:g}), price_per_hour (of one), text_length"
        " (tokens on average; the model's context).",
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="the plan's and the recipe's")
    parser.add_argument("--json", action="store_true", help="figures in place of the table")
    return parser
