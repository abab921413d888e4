"""A pull of the weights back to those that a run began with: against forgetting in fine-tuning."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from coca_video.ops.distributed import local_part
from coca_video.training.optim import OptimizerConfig, anchor_of, group_of


class Anchor:
    """After each update: w <- w - rate x strength x (w - start), with each group's rate and strength.

    It is the gradient of L2-SP (arXiv 1802.01483, equation 2), taken as AdamW takes weight decay (arXiv
    1711.05101): past the moments, and only as far as the rate allows. Unlike weight decay it reaches biases
    and norms too. New weights, an adaptor's say, are drawn to their initial values.

    trained: names of all parameters that the run ever trains; the others stay at their start by themselves.
    A strength of 0 holds nothing of its group.
    Build it of a model that is on its device and, where it will be, sharded: a process holds the starts of
    what it has of each tensor.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, *, trained: Collection[str]):
        held = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name in trained and anchor_of(config, group_of(name))
        }
        self._strengths = {group_of(name): anchor_of(config, group_of(name)) for name in held}
        self._starts = {name: parameter.detach().clone() for name, parameter in held.items()}
        self._start_of = {parameter: self._starts[name] for name, parameter in held.items()}

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's step, with the rates of that step."""
        for group in optimizer.param_groups:
            if strength := self._strengths.get(group["name"]):
                weights = [local_part(parameter) for parameter in group["params"]]
                starts = [local_part(self._start_of[parameter]) for parameter in group["params"]]
                torch._foreach_lerp_(weights, starts, group["lr"] * strength)

    def state_dict(self) -> dict[str, Tensor]:
        """The starts by the names of their parameters; empty without any strength. Not copies."""
        return dict(self._starts)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes up the starts of a run that goes on, in place. Raises KeyError."""
        for name, start in self._starts.items():
            start.copy_(state[name])
