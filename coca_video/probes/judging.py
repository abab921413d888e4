"""How good heads are: what they say of every view of an example, together, against its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from einops import rearrange
from torch import Tensor, nn

from coca_video.metrics.classification import combined_views, mean_class_accuracy, top_figures
from coca_video.probes.tokens import Items, ReadingConfig, in_order, read_batches


class Candidates(str, Enum):
    """The classes among which a prediction is made."""

    all = "all"  # that were learned
    present = "present"  # those of them that occur in the part that is judged


@dataclass
class Judged:
    """What a head says of a part's examples."""

    scores: Tensor  # float64 'n candidates', sum over views of probabilities
    labels: Tensor  # int64 'n', as numbers of candidates
    candidates: list[int]  # as numbers of classes

    @property
    def probabilities(self) -> Tensor:
        """float64 'n candidates'."""
        return self.scores / self.scores.sum(dim=1, keepdim=True)

    def figures(self) -> dict[str, float]:
        """Per cent, and the mean negative logarithm of what the right class is given."""
        right = self.probabilities.gather(1, self.labels[:, None])
        figures = top_figures(self.scores, self.labels)
        figures["mean_class_accuracy"] = mean_class_accuracy(self.scores, self.labels)
        return figures | {"log_loss": -right.clamp_min(torch.finfo(right.dtype).tiny).log().mean().item()}


@torch.inference_mode()
def logits_of(heads: Sequence[nn.Module], items: Items, *, config: ReadingConfig) -> list[Tensor]:
    """Of each head 'items classes' on the CPU; the items are read once. The heads are on one device."""
    device = next(iter(heads[0].state_dict().values())).device
    rows: list[list[Tensor]] = [[] for _ in heads]
    for inputs in read_batches(items, in_order(len(items)), config=config):
        inputs = inputs.to(device)
        for row, head in zip(rows, heads):
            row.append(head(inputs).cpu())
    return [torch.cat(row) for row in rows]


def judge(logits: Tensor, labels: Tensor, *, num_views: int, candidates: Candidates) -> Judged | None:
    """logits 'items classes', labels 'items': views of one example in a row. None for a head that diverged.

    Several views: their probabilities are added (SlowFast, arXiv 1812.03982).
    """
    if not logits.isfinite().all():
        return None
    of_examples = labels[::num_views].contiguous()
    if candidates is Candidates.all:
        chosen = torch.arange(logits.shape[1])
    else:
        chosen = of_examples.unique()
    views = rearrange(logits[:, chosen], "(n v) c -> n v c", v=num_views)
    return Judged(combined_views(views), torch.searchsorted(chosen, of_examples), chosen.tolist())
