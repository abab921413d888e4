"""How a training run fits a number of accelerators: memory, micro-batches, hours and cost."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from coca_video.layers.patches import Stem
from coca_video.models.coca import CoCaConfig
from coca_video.planning.flops import GROUPS, StepShape, flops_of_step
from coca_video.planning.memory import Kept, activations_by_part, frames_bytes, losses_bytes
from coca_video.planning.parameters import Parameters, StateBytes, count_parameters, state_bytes

GB = 1e9


@dataclass(frozen=True)
class Phase:
    """Steps that train the same groups on batches of the same shape."""

    num_steps: int
    trained: frozenset[str]
    batch: StepShape  # of all processes together


@dataclass(frozen=True)
class Run:
    """What shall be trained."""

    model: CoCaConfig
    phases: list[Phase]
    optimizer: str  # adamw, adafactor
    averaged: bool
    bfloat16: bool
    captioning: bool = True
    contrastive: bool = True
    ring: bool = False
    separate: bool = False  # micro-batches have negatives of their own alone: no second forward pass
    encoded: bool = False  # batches of tokens, of a token cache
    frame_size: int = 0  # pixels at which frames wait

    @property
    def losses(self) -> dict[str, bool]:
        return {"captioning": self.captioning, "contrastive": self.contrastive, "encoded": self.encoded}


@dataclass(frozen=True)
class Cluster:
    """What it shall be trained on."""

    num_devices: int
    memory: float  # bytes of each
    peak: float  # FLOP/s of each
    utilisation: float = 0.4  # share of the peak that what is computed reaches
    reserve: float = 0.1  # share of the memory for the allocator's gaps, CUDA and NCCL
    price_per_hour: float | None = None  # of one

    @property
    def usable(self) -> float:
        return self.memory * (1 - self.reserve)


@dataclass(frozen=True)
class Choice:
    """A way to share the work out, and what it takes."""

    sharing: str  # "alone", "ddp", "fsdp"
    recompute: bool
    rows: int  # of a device in a step
    micro_batch_size: int  # rows that pass at a time
    state: StateBytes
    activations: int  # bytes of a micro-batch, and what is held of the whole batch
    flops: int  # of a device in all steps, what is computed twice included
    model_flops: int  # what the model needs

    @property
    def num_parts(self) -> int:
        return -(-self.rows // self.micro_batch_size)

    @property
    def memory(self) -> int:
        return self.state.total + self.activations

    def hours(self, cluster: Cluster) -> float:
        return self.flops / (cluster.peak * cluster.utilisation) / 3600


@dataclass(frozen=True)
class Plan:
    run: Run
    cluster: Cluster
    parameters: Parameters
    choices: list[Choice]  # those that fit, the fastest first
    least: Choice  # of least memory, one row at a time, whether it fits or not

    @property
    def best(self) -> Choice | None:
        return self.choices[0] if self.choices else None


def make_plan(run: Run, cluster: Cluster) -> Plan:
    parameters = count_parameters(run.model)
    least, fitting = None, []
    for sharing in ["alone"] if cluster.num_devices == 1 else ["ddp", "fsdp"]:
        for recompute in (False, True):
            way = _Way(run, cluster, parameters, sharing, recompute)
            smallest = way.choice(way.smallest_micro_batch)
            if least is None or smallest.memory < least.memory:
                least = smallest
            if smallest.memory <= cluster.usable:
                fitting.append(way.choice(way.largest_micro_batch()))
    # Of equal work, the plain way first: weights that are whole need no gathering.
    fitting.sort(key=lambda choice: (choice.flops, choice.sharing == "fsdp", choice.num_parts))
    return Plan(run, cluster, parameters, fitting, least)


@dataclass(frozen=True)
class _Way:
    run: Run
    cluster: Cluster
    parameters: Parameters
    sharing: str
    recompute: bool

    def rows(self, phase: Phase) -> int:
        """Of a device in a step."""
        return -(-phase.batch.num_clips // self.cluster.num_devices)

    @property
    def most_rows(self) -> int:
        return max(map(self.rows, self.run.phases))

    @property
    def smallest_micro_batch(self) -> int:
        """Batch norm needs the whole batch."""
        return self.most_rows if self.run.model.image.stem == Stem.conv else 1

    def largest_micro_batch(self) -> int:
        """Of those that share a device's rows out evenly, which waste nothing."""
        for num_parts in range(1, self.most_rows + 1):
            size = -(-self.most_rows // num_parts)
            if size <= self.smallest_micro_batch or self.memory(size) <= self.cluster.usable:
                return max(size, self.smallest_micro_batch)
        return self.smallest_micro_batch

    def choice(self, micro_batch_size: int) -> Choice:
        flops, model_flops = (
            sum(phase.num_steps * self._flops(phase, again, micro_batch_size) for phase in self.run.phases)
            for again in (True, False)
        )
        fullest = max(self.run.phases, key=lambda phase: self._memory(phase, micro_batch_size))
        state, activations = self.state(fullest), self.activations(fullest, micro_batch_size)
        sizes = (self.most_rows, micro_batch_size)
        return Choice(self.sharing, self.recompute, *sizes, state, activations, flops, model_flops)

    def memory(self, micro_batch_size: int) -> int:
        """Bytes at the fullest moment of any phase."""
        return max(self._memory(phase, micro_batch_size) for phase in self.run.phases)

    def _memory(self, phase: Phase, micro_batch_size: int) -> int:
        return self.state(phase).total + self.activations(phase, micro_batch_size)

    def state(self, phase: Phase) -> StateBytes:
        return state_bytes(
            self.parameters,
            optimizer=self.run.optimizer,
            averaged=self.run.averaged,
            bfloat16=self.run.bfloat16,
            trained=phase.trained,
            shared_by=self.cluster.num_devices if self.sharing == "fsdp" else 1,
        )

    def activations(self, phase: Phase, micro_batch_size: int) -> int:
        run, rows = self.run, self.rows(phase)
        part = shape_of_rows(phase.batch, min(micro_batch_size, rows))
        how = {"bfloat16": run.bfloat16, "trained": phase.trained, **run.losses}
        kept = sum(activations_by_part(run.model, part, **how).values(), Kept())
        held = kept.total(recompute=self.recompute) + kept.workspace
        own = shape_of_rows(phase.batch, rows)
        if not run.encoded:
            size = own.image_size or run.model.image.image_size
            held += frames_bytes(own, part, image_size=size, frame_size=run.frame_size or size)
        if run.contrastive:
            compared = part.num_clips if run.separate else rows
            among = {"num_processes": self.cluster.num_devices, "ring": run.ring}
            held += losses_bytes(run.model, own_pairs=compared, **among)
        return held

    def _flops(self, phase: Phase, again: bool, micro_batch_size: int) -> int:
        """Of one step of one device; again: what is computed twice included."""
        run, rows = self.run, self.rows(phase)
        shape = shape_of_rows(phase.batch, rows)
        if self.cluster.num_devices > 1:
            shape = replace(shape, num_pairs=phase.batch.num_clips)
        cached = micro_batch_size < rows and run.contrastive and not run.separate
        repeats = {"recompute": self.recompute and again, "cached": cached and again}
        return flops_of_step(run.model, shape, trained=phase.trained, **repeats, **run.losses)


def shape_of_rows(batch: StepShape, num_rows: int) -> StepShape:
    """So many of a batch's clips, with their share of its frames and tokens, rounded up."""

    def share(total: int) -> int:
        return -(-total * num_rows // batch.num_clips)

    frames, tokens = share(batch.num_frames), share(batch.num_tokens)
    return replace(batch, num_clips=num_rows, num_frames=frames, num_tokens=tokens)


def as_text(plan: Plan) -> str:
    return "\n".join([*_about(plan), "", *(_fitting(plan) if plan.choices else _unfitting(plan))])


def as_figures(plan: Plan) -> dict:
    """For JSON: plain values."""
    return {
        "parameters": plan.parameters.by_part(),
        "devices": plan.cluster.num_devices,
        "usable_bytes": int(plan.cluster.usable),
        "choices": [_figures(choice, plan.cluster) for choice in plan.choices],
        "least": _figures(plan.least, plan.cluster),
    }


def _figures(choice: Choice, cluster: Cluster) -> dict:
    hours = choice.hours(cluster)
    price = cluster.price_per_hour
    return {
        "sharing": choice.sharing,
        "recompute": choice.recompute,
        "rows": choice.rows,
        "micro_batch_size": choice.micro_batch_size,
        "state_bytes": vars(choice.state),
        "activation_bytes": choice.activations,
        "memory_bytes": choice.memory,
        "flops": choice.flops,
        "model_flops": choice.model_flops,
        "hours": hours,
        "device_hours": hours * cluster.num_devices,
        "cost": None if price is None else hours * cluster.num_devices * price,
    }


def _about(plan: Plan) -> Iterator[str]:
    run, cluster = plan.run, plan.cluster
    parts = ", ".join(f"{part} {count / 1e6:,.1f}M" for part, count in plan.parameters.by_part().items())
    yield f"{plan.parameters.total / 1e6:,.1f}M parameters: {parts}"
    for phase in run.phases:
        batch = phase.batch
        size, tokens = batch.image_size or run.model.image.image_size, batch.num_tokens / batch.num_clips
        yield (
            f"{phase.num_steps:,} steps of {batch.num_clips:,} clips, {batch.num_frames:,} frames of"
            f" {size} px, texts of {tokens:g} tokens, at most {batch.longest_text}; trained: {_groups(phase)}"
        )
    yield f"{run.optimizer}, {'bfloat16' if run.bfloat16 else 'float32'}"
    yield (
        f"{cluster.num_devices:,} devices of {cluster.memory / GB:g} GB, {cluster.usable / GB:.1f} of them "
        f"usable, and {cluster.peak / 1e12:g} TFLOP/s, of which {cluster.utilisation:.0%} are reached"
    )


def _groups(phase: Phase) -> str:
    return ", ".join(group for group in GROUPS if group in phase.trained)


def _fitting(plan: Plan) -> Iterator[str]:
    cluster = plan.cluster
    names = ["", "sharing", "recompute", "micro-batch", "x", "state", "activations", "hours", "device-hours"]
    rows = [names + (["cost"] if cluster.price_per_hour is not None else [])]
    for choice in plan.choices:
        hours = choice.hours(cluster)
        cost = (
            [] if cluster.price_per_hour is None else [hours * cluster.num_devices * cluster.price_per_hour]
        )
        rows.append(
            [
                "->" if choice is plan.best else "",
                choice.sharing,
                "yes" if choice.recompute else "no",
                f"{choice.micro_batch_size:,}",
                f"{choice.num_parts:,}",
                f"{choice.state.total / GB:.1f} GB",
                f"{choice.activations / GB:.1f} GB",
                f"{hours:,.1f}",
                f"{hours * cluster.num_devices:,.0f}",
                *(f"{each:,.0f}" for each in cost),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield from ("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)
    best = plan.best
    yield ""
    yield (
        f"settings: {_settings(best)}; {best.rows:,} rows a device; "
        f"{best.flops / best.model_flops - 1:.0%} of the work is done twice"
    )


def _settings(choice: Choice) -> str:
    size = choice.micro_batch_size if choice.num_parts > 1 else 0
    keys = [
        f"loop.compute.micro_batch_size={size}",
        f"loop.compute.recompute={str(choice.recompute).lower()}",
    ]
    if choice.sharing != "alone":
        keys.insert(0, f"loop.parallel.sharing={choice.sharing}")
    return " ".join(keys)


def _unfitting(plan: Plan) -> Iterator[str]:
    least, reserve = plan.least, plan.cluster.reserve
    needed = least.memory / (1 - reserve) / GB
    rows = "one row" if least.micro_batch_size == 1 else f"{least.micro_batch_size:,} rows"
    how = f"{least.sharing}, {'recomputed' if least.recompute else 'not recomputed'}"
    yield f"nothing fits: {rows} at a time needs {needed:.1f} GB a device ({how})"
    held = {**vars(least.state), "activations": least.activations}
    yield "of " + ", ".join(f"{name} {size / GB:.1f} GB" for name, size in held.items() if size)
    yield "more devices share it out further, or larger ones are needed"
