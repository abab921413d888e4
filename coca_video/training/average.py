"""The exponential moving average of a model's weights."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from coca_video.ops.distributed import local_part


class Average:
    """Follows a model: average = decay x average + (1 - decay) x model at each update; the first one copies.

    trained: names of all parameters that the run ever trains, None = those that ask for a gradient now. The
    others never change, and are the model's own tensors here too. decay 0 = the raw weights: nothing is held.
    warm_up: update n has a decay of at most (1 + n) / (10 + n), so that a short run forgets where it began.

    Build it of a model that is on its device and, where it will be, sharded: a process averages what it has
    of each tensor. In one process the values are those of torch's AveragedModel, to the last bit.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        *,
        trained: Collection[str] | None = None,
        warm_up: bool = False,
    ):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay, self.warm_up = decay, warm_up
        self.num_updates = 0
        state = model.state_dict()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if trained is None:
            trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
        held = set(trained) if decay else set()
        # Buffers are copied, not averaged: they are averages of their own, or counts.
        copied = set(state) - set(parameters) if decay else set()
        own = held | copied
        self._state = {name: x.clone() if name in own else x for name, x in state.items()}
        self._held = {name: x for name, x in self._state.items() if name in held}
        self._copied = {name: x for name, x in self._state.items() if name in copied}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Raises RuntimeError if a parameter asks for a gradient that was not to be trained."""
        current = model.state_dict(keep_vars=True)
        unforeseen = [name for name, x in current.items() if x.requires_grad and name not in self._held]
        if self.decay and unforeseen:
            raise RuntimeError(f"not among the parameters to be averaged: {', '.join(unforeseen)}")
        for name, x in current.items():
            if name in self._copied:
                self._copied[name].copy_(x)
            elif name not in self._held:
                self._state[name] = x.detach()
        if self._held:
            self._follow(current)
        self.num_updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Names as in the model's own; the tensors are not copies."""
        return dict(self._state)

    def load_state_dict(self, state: dict[str, Tensor], *, num_updates: int) -> None:
        """Takes up an average in place; what the run never trains stays the model's. Raises KeyError."""
        for name, x in (self._held | self._copied).items():
            x.copy_(state[name])
        self.num_updates = num_updates

    def _decay_now(self) -> float:
        if not self.warm_up:
            return self.decay
        return min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))

    def _follow(self, current: dict[str, Tensor]) -> None:
        averaged = [local_part(x) for x in self._held.values()]
        new = [local_part(current[name]) for name in self._held]
        if self.num_updates:
            torch._foreach_lerp_(averaged, new, 1 - self._decay_now())
        else:
            torch._foreach_copy_(averaged, new)
