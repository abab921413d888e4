"""What the two benchmarks of a loss share: time, peak memory and gradients, beside the plain formula."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from coca_video.benchmarks.measure import compare_processes
from coca_video.benchmarks.pair import Pair
from coca_video.benchmarks.report import Result

Loss = Callable[..., Tensor]
Inputs = Callable[[], tuple[Tensor, ...]]  # those that are floating get gradients


def compare_losses(
    ours: Loss, plain: Loss, inputs: Inputs, *, subject: str, repeats: int, device: torch.device
) -> Result:
    """All three are functions of a module, or partials of such: each side runs in its own process."""
    sides = {
        name: partial(prepare, loss, inputs, device) for name, loss in (("ours", ours), ("plain", plain))
    }
    measured = compare_processes(sides, repeats=repeats, device=device)
    pair = Pair(ours=measured["ours"], theirs=measured["plain"], peer="plain")
    difference = gradient_difference(ours, plain, inputs, device)
    ratios = f"speed {pair.speed_ratio:.2f}, peak memory above inputs {pair.above_inputs_ratio:.3f}"
    return Result(
        subject=f"{subject}, float32, forward and backward",
        rows=pair.rows(),
        figures={"pair": pair.figures(), "gradient_difference": difference},
        notes=[
            f"the losses differ by {pair.loss_difference:.1e}, "
            f"the gradients by {difference:.1e} of the largest of their kind"
        ],
        last=f"ours / plain: {ratios}",
    )


def prepare(loss: Loss, inputs: Inputs, device: torch.device) -> Callable[[], float]:
    tensors = _with_gradients(inputs, device)

    def forward_backward() -> float:
        for tensor in tensors:
            tensor.grad = None
        value = loss(*tensors)
        value.backward()
        return value.item()

    return forward_backward


def gradient_difference(ours: Loss, plain: Loss, inputs: Inputs, device: torch.device) -> float:
    """The largest over all inputs, each as a share of the plain gradient's largest value."""
    found, expected = (_gradients(loss, inputs, device) for loss in (ours, plain))
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected))


def _gradients(loss: Loss, inputs: Inputs, device: torch.device) -> list[Tensor]:
    tensors = _with_gradients(inputs, device)
    loss(*tensors).backward()
    return [tensor.grad for tensor in tensors if tensor.grad is not None]


def _with_gradients(inputs: Inputs, device: torch.device) -> list[Tensor]:
    return [x.to(device).requires_grad_(x.is_floating_point()) for x in inputs()]
