"""Adafactor as large image models are trained with it: Zhai et al., arXiv 2106.04560, section 3.4.

Shazeer and Stern's rule (arXiv 1804.04235) without relative steps and without scaling by the parameter, with
a first moment in bfloat16 and a second moment whose decay grows to a cap. CoCa trains with it (section 4.1).
Public code that this agrees with: `scale_by_adafactor` of google-research/big_vision, which chains optax's
`scale_by_factored_rms`, `clip_by_block_rms` and `ema`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.tensor as sharded
from torch import Tensor
from torch.distributed.tensor import DeviceMesh, DTensor, Placement, Replicate, Shard

from coca_video.ops.distributed import local_part

DECAY_POWER = 0.8  # beta2 of step t is 1 - t ** -0.8, up to its cap (arXiv 1804.04235, section 7.2)


class Adafactor(torch.optim.Optimizer):
    """Of a matrix it keeps one bfloat16 number an element, and one float32 number a row and a column.

    betas: of the first moment (0 = none is kept), and the cap of the second one's.
    eps: added to each squared gradient.
    weight_decay: decoupled; a step takes lr * weight_decay of the weight, as in AdamW.
    clip_rms: a parameter's step whose root mean square is larger is scaled down to it; 0 = no clipping.
    min_size: a parameter is factored over its two largest dimensions if both are at least as large; of the
    others, vectors among them, the second moment is kept whole.

    Parameters may be sharded by fully_shard: the values are those of one process, for two exchanges a step.
    The state is there from the start, so that it can be saved and loaded without a step. Raises ValueError
    for settings out of range, and for parameters sharded in another dimension than the first.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-30,
        weight_decay: float = 0.0,
        clip_rms: float = 1.0,
        min_size: int = 32,
    ):
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        if eps <= 0:
            raise ValueError(f"eps must be positive, got {eps}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "clip_rms": clip_rms}
        super().__init__(params, defaults | {"min_size": min_size})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = _initial_state(parameter, group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of all parameters that have a gradient. With shards, all processes must call."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parts = [
            _Part.of(parameter, group, self.state[parameter])
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        means = [(part, part.observe()) for part in parts]
        _sum_over_shards([(part.mesh, mean) for part, mean in means if part.is_split and mean is not None])
        for part, mean in means:
            part.follow(mean)
        sums = [(part, part.sum_of_squares()) for part in parts if part.group["clip_rms"]]
        _sum_over_shards([(part.mesh, total) for part, total in sums if part.mesh is not None])
        for part, total in sums:
            part.clip(total)
        for part in parts:
            part.move()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As every optimizer's; but that one gives all state the type of its parameter."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if "momentum" in state:
                state["momentum"] = state["momentum"].to(torch.bfloat16)


@dataclass
class _Part:
    """What this process has of a parameter: all of it, or its shard. Tensors are local ones.

    The second moment of a factored parameter is rows x columns / mean, each a mean over the other dimension.
    """

    parameter: Tensor
    gradient: Tensor
    group: dict[str, Any]
    state: dict[str, Tensor]
    size: torch.Size  # of the whole parameter
    mesh: DeviceMesh | None  # of its shards; None if it is whole
    share: Tensor | float = 1.0  # of the step that clipping leaves

    @classmethod
    def of(cls, parameter: Tensor, group: dict[str, Any], state: dict[str, Tensor]) -> "_Part":
        state["step"] += 1
        locals_ = {name: local_part(x) for name, x in state.items()}
        gradient = local_part(parameter.grad).float()
        mesh = _mesh_of_shards(parameter)
        return cls(local_part(parameter), gradient, group, locals_, parameter.shape, mesh)

    @property
    def factored(self) -> tuple[int, int] | None:
        return _factored_dims(self.size, self.group["min_size"])

    @property
    def is_split(self) -> bool:
        """Whether a column's elements lie in several processes: shards are of the first dimension."""
        return self.mesh is not None and self.factored is not None and self.factored[0] == 0

    @property
    def _weight(self) -> float:
        """Of this step in the second moment: 1 - beta2."""
        return 1 - min(self.group["betas"][1], 1 - self.state["step"].item() ** -DECAY_POWER)

    def observe(self) -> Tensor | None:
        """Follows the squared gradient, but returns the columns' mean; where they are split, its summand."""
        squares = self.gradient.square().add_(self.group["eps"])
        if self.factored is None:
            self.state["square"].lerp_(squares, self._weight)
            return None
        rows, columns = self.factored
        self.state["rows"].lerp_(squares.mean(columns), self._weight)
        return squares.sum(rows) / self.size[rows]

    def follow(self, mean: Tensor | None) -> None:
        if mean is not None:
            self.state["columns"].lerp_(mean, self._weight)

    def scaled(self) -> Tensor:
        """The gradient over the root of its second moment."""
        if self.factored is None:
            return self.gradient * self.state["square"].rsqrt()
        rows, columns = self.factored
        of_columns = self.state["columns"].unsqueeze(rows)
        of_rows = self.state["rows"].unsqueeze(columns) / of_columns.mean(columns, keepdim=True)
        return (self.gradient * of_rows.rsqrt_()).mul_(of_columns.rsqrt())

    def sum_of_squares(self) -> Tensor:
        return self.scaled().square_().sum()

    def clip(self, total: Tensor) -> None:
        """total: `sum_of_squares` of all shards."""
        rms = (total / self.size.numel()).sqrt()
        self.share = 1 / (rms / self.group["clip_rms"]).clamp(min=1.0)

    def move(self) -> None:
        # The step is computed again: to keep those of all parameters would take as much memory as they do.
        update = self.scaled().mul_(self.share)
        if "momentum" in self.state:
            update = self.state["momentum"].float().lerp_(update, 1 - self.group["betas"][0])
            self.state["momentum"].copy_(update)
        self.parameter.mul_(1 - self.group["lr"] * self.group["weight_decay"])
        self.parameter.add_(update, alpha=-self.group["lr"])


def _initial_state(parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
    state = {"step": torch.tensor(0.0)}
    if group["betas"][0]:
        state["momentum"] = _zeros(parameter, parameter.shape, dtype=torch.bfloat16)
    factored = _factored_dims(parameter.shape, group["min_size"])
    if factored is None:
        return state | {"square": _zeros(parameter, parameter.shape)}
    rows, columns = factored
    state["rows"] = _zeros(parameter, _without(parameter.shape, columns))
    state["columns"] = _zeros(parameter, _without(parameter.shape, rows), is_split=rows != 0)
    return state


def _factored_dims(shape: torch.Size, min_size: int) -> tuple[int, int] | None:
    """The two largest dimensions in their order, of equal ones the last; None if one is too small."""
    if len(shape) < 2:
        return None
    rows, columns = sorted(sorted(range(len(shape)), key=lambda dim: shape[dim])[-2:])
    return (rows, columns) if min(shape[rows], shape[columns]) >= min_size else None


def _without(shape: torch.Size, dim: int) -> list[int]:
    return [size for i, size in enumerate(shape) if i != dim]


def _zeros(like: Tensor, size: Iterable[int], *, dtype=torch.float32, is_split: bool = True) -> Tensor:
    """Sharded in the first dimension as `like`; whole in every process if not is_split."""
    if not isinstance(like, DTensor):
        return torch.zeros(tuple(size), dtype=dtype, device=like.device)
    placements = like.placements if is_split else [Replicate()] * len(like.placements)
    return sharded.zeros(*size, dtype=dtype, device_mesh=like.device_mesh, placements=placements)


def _mesh_of_shards(parameter: Tensor) -> DeviceMesh | None:
    """The processes that hold the other shards (a mesh's other dimensions are replicas)."""
    if not isinstance(parameter, DTensor):
        return None
    split = [dim for dim, placement in enumerate(parameter.placements) if not placement.is_replicate()]
    if len(split) > 1 or any(not _is_of_rows(parameter.placements[dim]) for dim in split):
        raise ValueError(
            f"Adafactor: sharded in the first dimension or not at all, got {parameter.placements}"
        )
    if not split:
        return None
    mesh = parameter.device_mesh
    return mesh if mesh.ndim == 1 else mesh[mesh.mesh_dim_names[split[0]]]


def _is_of_rows(placement: Placement) -> bool:
    return type(placement) is Shard and placement.dim == 0


def _sum_over_shards(tensors: list[tuple[DeviceMesh, Tensor]]) -> None:
    """In place: each tensor becomes the sum of all processes', in one exchange a mesh."""
    by_mesh: dict[DeviceMesh, list[Tensor]] = {}
    for mesh, tensor in tensors:
        by_mesh.setdefault(mesh, []).append(tensor)
    for mesh, own in by_mesh.items():
        everything = torch.cat([tensor.flatten() for tensor in own])
        dist.all_reduce(everything, group=mesh.get_group())
        summed = everything.split([tensor.numel() for tensor in own])
        torch._foreach_copy_(own, [total.view_as(tensor) for total, tensor in zip(summed, own)])
