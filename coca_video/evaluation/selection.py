"""What a task judges: a part of a data set, and how much of it there is."""

from dataclasses import dataclass, field

from coca_video.data.benchmarks.card import Card
from coca_video.data.manifest import ClipRecord, belongs
from coca_video.errors import InputError
from coca_video.evaluation.features import Features
from coca_video.evaluation.parts import Rows


@dataclass
class Selection:
    rows: list[int]  # of the features
    records: list[ClipRecord]  # the same, as records
    indices: list[int]  # the same, as numbers of records
    num_failed: int  # selected too, but not readable
    num_expected: int | None  # by the publisher; None: nobody says

    def counts(self) -> dict[str, int | None]:
        """What every task's figures begin with."""
        return {
            "num_evaluated": len(self.rows),
            "num_failed": self.num_failed,
            "num_expected": self.num_expected,
        }


@dataclass
class Evaluated:
    """A data set behind the model."""

    records: list[ClipRecord]  # those of the manifest that any task judges
    card: Card | None
    features: Features
    predictions: Rows = field(default_factory=Rows)  # of a task's head; where there is one

    def select(self, subset: str) -> Selection:
        """The part called `subset`, as `belongs` spells it.

        Raises InputError for a part without a readable example.
        """
        chosen = {i for i, record in enumerate(self.records) if belongs(record.labels, subset)}
        rows = [row for row, i in enumerate(self.features.indices) if i in chosen]
        if not rows:
            raise InputError(f"evaluate: no readable example is in the subset {subset!r}")
        indices = [self.features.indices[row] for row in rows]
        num_failed = sum(each.index in chosen for each in self.features.failed)
        return Selection(
            rows, [self.records[i] for i in indices], indices, num_failed, self._expected(subset, len(chosen))
        )

    def _expected(self, subset: str, num_chosen: int) -> int | None:
        if self.card is None:
            return None
        if subset in self.card.subsets:
            return self.card.subsets[subset]
        return self.card.num_expected if num_chosen == len(self.records) else None
