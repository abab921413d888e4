"""Ours beside a peer that does the same, each measured in a process of its own."""

from dataclasses import asdict, dataclass

from coca_video.benchmarks.measure import Measured
from coca_video.benchmarks.report import GB


@dataclass
class Pair:
    """Ratios mean something only where both losses are the same: they stand in every table."""

    ours: Measured
    theirs: Measured
    peer: str

    @property
    def speed_ratio(self) -> float:
        """How many times as fast ours is."""
        return self.theirs.seconds / self.ours.seconds

    @property
    def peak_ratio(self) -> float:
        """Ours as a share of theirs, whole processes."""
        return self.ours.peak / self.theirs.peak

    @property
    def above_inputs_ratio(self) -> float:
        """Ours as a share of theirs, without what was there before the call."""
        return self.ours.above_inputs / self.theirs.above_inputs

    @property
    def loss_difference(self) -> float:
        return abs(self.ours.loss - self.theirs.loss)

    def rows(self) -> list[list[str]]:
        header = ["", "time", "peak memory", "above inputs", "loss"]
        return [header, _row("ours", self.ours), _row(self.peer, self.theirs)]

    def figures(self) -> dict:
        ratios = ("speed_ratio", "peak_ratio", "above_inputs_ratio", "loss_difference")
        sides = {"ours": asdict(self.ours), "theirs": asdict(self.theirs), "peer": self.peer}
        return sides | {name: getattr(self, name) for name in ratios}


def _row(name: str, side: Measured) -> list[str]:
    memory = [f"{side.peak / GB:.2f} GB", f"{side.above_inputs / GB:.2f} GB"]
    return [name, f"{side.seconds:.3f}s", *memory, f"{side.loss:.5f}"]
