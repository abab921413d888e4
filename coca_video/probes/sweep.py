"""Many heads at once: each learning rate with each weight decay, all fed by one reading of the cache."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from coca_video.files import write_whole_bytes
from coca_video.probes.tokens import Inputs, Items, ReadingConfig, read_batches
from coca_video.training.adafactor import Adafactor
from coca_video.training.average import Average
from coca_video.training.optim import OptimizerConfig, OptimizerName, Schedule, rate_share
from coca_video.training.seeds import seed_of

STATE = "sweep.safetensors"  # of a sweep that is not at its end


@dataclass
class SweepConfig:
    """Every lr with every weight_decay, num_seeds heads each, which begin with weights of their own."""

    lr: list[float] = field(default_factory=lambda: [3e-4, 1e-3, 3e-3])
    weight_decay: list[float] = field(default_factory=lambda: [0.0, 0.01, 0.1])
    num_seeds: int = 1  # of heads that begin with random weights; a linear one begins with none
    num_steps: int = 1000
    batch_size: int = 128  # items: views of examples and their copies
    optimizer: OptimizerName = OptimizerName.adamw
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    num_warmup_steps: int = 0
    schedule: Schedule = Schedule.cosine
    label_smoothing: float = 0.1
    clip_norm: float = 1.0  # of a head's gradient; 0 = no clipping
    ema_decay: float = 0.9999  # what is judged are averaged weights; less at first, see training.average
    seed: int = 0
    save_every: int = 1000  # steps: an interrupted sweep goes on from there

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            values = getattr(self, name)
            if not values or min(values) < 0 or len(set(values)) < len(values):
                raise ValueError(f"{name} must be different numbers, none negative, got {values}")
        if min(self.lr) == 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        for name in ("num_seeds", "num_steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        self.rates()  # raises for what an optimizer does not take

    def rates(self) -> OptimizerConfig:
        """Of which the schedule is that of training."""
        warmup = {"num_warmup_steps": self.num_warmup_steps, "schedule": self.schedule}
        return OptimizerConfig(name=self.optimizer, betas=self.betas, **warmup)


@dataclass(frozen=True)
class Setting:
    lr: float
    weight_decay: float
    seed: int

    @property
    def shared(self) -> tuple[float, float]:
        """By heads of other seeds."""
        return self.lr, self.weight_decay


def settings_of(config: SweepConfig, *, is_random: bool) -> list[Setting]:
    """is_random: whether heads begin with random weights, so that seeds differ."""
    seeds = range(config.num_seeds if is_random else 1)
    return [Setting(lr, decay, seed) for lr in config.lr for decay in config.weight_decay for seed in seeds]


class Sweep:
    """Heads that learn side by side: a step is one batch, one backward pass of the sum of their losses.

    Each has its own rate, decay and clipping, and what one does has no effect on another.
    """

    def __init__(
        self,
        settings: list[Setting],
        build: Callable[[], nn.Module],
        config: SweepConfig,
        device: torch.device,
    ):
        self.settings, self.config, self.num_done = settings, config, 0
        self.heads = nn.ModuleList(_seeded(build, config.seed, each.seed) for each in settings).to(device)
        self.optimizer = _optimizer(self.heads, settings, config)
        self.average = Average(self.heads, config.ema_decay, warm_up=True)
        self.device, self._rates = device, config.rates()

    def step(self, inputs: Inputs) -> Tensor:
        """The losses before the step, a head each: 'heads'."""
        share = rate_share(self._rates, self.num_done, num_steps=self.config.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        inputs = inputs.to(self.device)
        smoothing = {"label_smoothing": self.config.label_smoothing}
        losses = torch.stack(
            [F.cross_entropy(head(inputs), inputs.labels, **smoothing) for head in self.heads]
        )
        self.optimizer.zero_grad()
        losses.sum().backward()
        if self.config.clip_norm:
            for head in self.heads:
                nn.utils.clip_grad_norm_(head.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.average.update(self.heads)
        self.num_done += 1
        return losses.detach()

    def finish(self) -> None:
        """The heads become their averages."""
        self.heads.load_state_dict(self.average.state_dict())
        self.heads.eval()

    def tensors(self) -> dict[str, Tensor]:
        """All that another step depends on, beside `num_done`."""
        found = {f"head.{name}": x for name, x in self.heads.state_dict().items()}
        found |= {f"average.{name}": x for name, x in self.average.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": x for name, x in state.items()}
        return found

    def take(self, tensors: dict[str, Tensor], *, num_done: int) -> None:
        """Goes on from what `tensors` gave after so many steps. Raises KeyError."""
        parts: dict[str, dict[str, Tensor]] = {"head": {}, "average": {}, "optimizer": {}}
        for name, x in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = x
        self.heads.load_state_dict(parts["head"])
        self.average.load_state_dict(parts["average"], num_updates=num_done)
        state: dict[int, dict[str, Tensor]] = {}
        for name, x in parts["optimizer"].items():
            number, _, rest = name.partition(".")
            state.setdefault(int(number), {})[rest] = x
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.num_done = num_done


def _seeded(build: Callable[[], nn.Module], *numbers: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*numbers))
        return build()


def _optimizer(heads: nn.ModuleList, settings: list[Setting], config: SweepConfig) -> torch.optim.Optimizer:
    """Weight decay reaches matrices only, as in training."""
    groups = []
    for head, setting in zip(heads, settings):
        for is_matrix in (True, False):
            own = [x for x in head.parameters() if (x.ndim >= 2) == is_matrix]
            decay = setting.weight_decay if is_matrix else 0.0
            rate = {"lr": setting.lr, "initial_lr": setting.lr, "weight_decay": decay}
            groups.append({"params": own, **rate})
    if config.optimizer is OptimizerName.adafactor:
        return Adafactor(groups, lr=1.0, betas=tuple(config.betas))
    return torch.optim.AdamW(groups, betas=tuple(config.betas), fused=True)


def batches_of(length: int, config: SweepConfig, *, first: int) -> Iterator[list[int]]:
    """Items of each step from `first` on: every epoch another order, a function of the seed alone."""
    epochs: dict[int, list[int]] = {}
    for step in range(first, config.num_steps):
        places = range(step * config.batch_size, (step + 1) * config.batch_size)
        wanted = {place // length for place in places}
        epochs = {epoch: epochs.get(epoch) or _order(length, config.seed, epoch) for epoch in wanted}
        yield [epochs[place // length][place % length] for place in places]


def _order(length: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed_of(seed, epoch))
    return torch.randperm(length, generator=generator).tolist()


def run_sweep(
    sweep: Sweep, items: Items, *, reading: ReadingConfig, folder: Path, about: dict[str, Any]
) -> list[float]:
    """Trains to the end, and gives each head's mean loss over the last tenth of the steps made here.

    about: all that the sweep depends on, in JSON's terms; a state in `folder` of the same goes on.
    """
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    _resume(sweep, folder / STATE, key)
    config, first = sweep.config, sweep.num_done
    batches = batches_of(len(items), config, first=first)
    last: list[Tensor] = []
    with tqdm(total=config.num_steps, initial=first, desc=f"{len(sweep.heads)} heads", unit="step") as bar:
        for inputs in read_batches(items, batches, config=reading):
            losses = sweep.step(inputs)
            if sweep.num_done > config.num_steps - max(1, config.num_steps // 10):
                last.append(losses.cpu())
            bar.update()
            if sweep.num_done % config.save_every == 0 and sweep.num_done < config.num_steps:
                _save(sweep, folder / STATE, key)
    sweep.finish()
    (folder / STATE).unlink(missing_ok=True)
    return torch.stack(last).mean(dim=0).tolist()


def _save(sweep: Sweep, path: Path, key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: x.detach().cpu().contiguous().clone() for name, x in sweep.tensors().items()}
    about = {"key": key, "num_done": str(sweep.num_done)}
    write_whole_bytes(path, save(tensors, metadata=about))


def _resume(sweep: Sweep, path: Path, key: str) -> None:
    """A state of another sweep, or one that cannot be read, is as good as none."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError):
        return
    sweep.take(tensors, num_done=int(about["num_done"]))
