"""A side of a comparison that takes a known amount of memory: here, where a fresh process can import it."""

from collections.abc import Callable

import torch

MIB = 2**20


def holding(mib: int, *, inputs_mib: int) -> Callable[[], float]:
    """Has inputs, and a call that fills `mib` more and returns the mean of both."""
    inputs = torch.ones(inputs_mib * MIB // 4)

    def call() -> float:
        return (inputs.mean() + torch.full((mib * MIB // 4,), 2.0).mean()).item()

    return call
