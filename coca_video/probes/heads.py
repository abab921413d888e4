"""What a probe learns: heads that say a class of frozen features, and how one is kept to be used again."""

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from coca_video.errors import InputError
from coca_video.files import write_whole, write_whole_bytes
from coca_video.layers.linear import Linear
from coca_video.models.classifier import PooledClassifier
from coca_video.probes.tokens import Inputs, normalised

FORMAT = 1
WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"
LEAST = 1e-30  # a class without any neighbour


class Kind(str, Enum):
    attentional = "attentional"  # a new pooler of one query over all tokens, and a softmax (CoCa, 4.2.1)
    linear = "linear"  # a linear map of features, and a softmax
    knn = "knn"  # the classes of the nearest training items; nothing is learned


class AttentionalHead(nn.Module):
    def __init__(self, width: int, num_heads: int, *, num_classes: int):
        super().__init__()
        self.classifier = PooledClassifier(width, num_heads, num_classes=num_classes)

    def forward(self, inputs: Inputs) -> Tensor:
        """Tokens 'b n d' -> logits 'b c'."""
        return self.classifier(inputs.content, mask=inputs.mask)


class LinearHead(nn.Module):
    """Features, each with the training items' mean and deviation taken out, to logits; these begin as zero.

    Without that, which learning rates suit would depend on the features' scale.
    """

    def __init__(self, mean: Tensor, deviation: Tensor, *, num_classes: int):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation.clamp_min(1e-6))
        self.classes = Linear(len(mean), num_classes)
        nn.init.zeros_(self.classes.weight)
        nn.init.zeros_(self.classes.bias)

    def forward(self, inputs: Inputs) -> Tensor:
        """Features 'b d' -> logits 'b c'."""
        return self.classes((inputs.content - self.mean) / self.deviation)


class NeighbourHead(nn.Module):
    """The k nearest training items vote, each by exp(cosine / temperature) (DINO, arXiv 2104.14294).

    bank: unit features of training items 'items d'; labels: int 'items'.
    """

    def __init__(self, bank: Tensor, labels: Tensor, *, num_classes: int, k: int, temperature: float):
        super().__init__()
        self.register_buffer("bank", bank)
        self.register_buffer("labels", labels)
        self.num_classes, self.k, self.temperature = num_classes, k, temperature

    def forward(self, inputs: Inputs) -> Tensor:
        """Features 'b d' -> logarithms of the shares of votes 'b c', float64."""
        cosine, nearest = (normalised(inputs.content) @ self.bank.T).topk(min(self.k, len(self.bank)))
        weights = (cosine.double() / self.temperature).softmax(dim=-1)
        votes = weights.new_zeros(len(weights), self.num_classes)
        votes.scatter_add_(1, self.labels[nearest], weights)
        return votes.clamp_min(LEAST).log()


@dataclass
class SavedHead:
    """A head with what it was made of: kind, sizes, classes, the model and how its frames were chosen."""

    head: nn.Module
    about: dict[str, Any]


def save_head(folder: Path, head: nn.Module, about: dict[str, Any]) -> None:
    """Two files, the description last: where it is, the weights are. about: in JSON's terms."""
    sizes = {"kind": kind_of(head).value} | _sizes(head)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    weights = {name: weight.cpu().contiguous() for name, weight in head.state_dict().items()}
    write_whole_bytes(folder / WEIGHTS, save(weights))
    described = {"format": FORMAT, "sizes": sizes} | about
    write_whole(folder / DESCRIPTION, json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def load_head(folder: Path | str) -> SavedHead:
    """The head (in eval mode) that a probe left in its folder.

    Raises InputError, naming the file, where there is none or it is damaged.
    """
    path = Path(folder) / DESCRIPTION
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
        sizes = about["sizes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the description of a probe's head ({error})") from error
    file = path.with_name(WEIGHTS)
    try:
        weights = load_file(file)
        head = _empty(weights, **sizes)
        head.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file}: cannot be read as a probe's head ({reason})") from error
    return SavedHead(head.eval(), about)


def kind_of(head: nn.Module) -> Kind:
    kinds = {AttentionalHead: Kind.attentional, LinearHead: Kind.linear, NeighbourHead: Kind.knn}
    return kinds[type(head)]


def _sizes(head: nn.Module) -> dict[str, Any]:
    """What a head cannot be built without, beside its weights."""
    if isinstance(head, NeighbourHead):
        return {"num_classes": head.num_classes, "k": head.k, "temperature": head.temperature}
    if isinstance(head, AttentionalHead):
        pooler = head.classifier.pooler
        width, num_heads = pooler.queries.shape[-1], pooler.attention.num_heads
        return {"width": width, "num_heads": num_heads, "num_classes": head.classifier.classes.out_features}
    return {"num_classes": head.classes.out_features}


def _empty(weights: dict[str, Tensor], *, kind: str, **sizes: Any) -> nn.Module:
    if Kind(kind) is Kind.attentional:
        return AttentionalHead(sizes.pop("width"), sizes.pop("num_heads"), **sizes)
    if Kind(kind) is Kind.linear:
        return LinearHead(weights["mean"], weights["deviation"], **sizes)
    return NeighbourHead(torch.zeros_like(weights["bank"]), torch.zeros_like(weights["labels"]), **sizes)
