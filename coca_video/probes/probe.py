"""What a frozen encoder's features know: a probe learns on one part of a data set, is chosen on another, and
judged on a third.

CoCa's frozen-feature evaluation (arXiv 2205.01917, section 4.2.1) puts a new attentional pooler of one query
and a softmax on the tokens of the image encoder, of a video on those of all its frames. Beside it are linear
and k-NN probes. The encoder sees each example once; whatever is learned reads its tokens from the cache.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from coca_video.data.benchmarks.card import Card, file_hash
from coca_video.data.sources import Kind as SourceKind
from coca_video.data.token_cache import TokenCache
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.models.coca import CoCa
from coca_video.probes.examples import (
    Classes,
    CopiesConfig,
    Part,
    PartConfig,
    card_of,
    classes_of,
    held_out,
    open_part,
)
from coca_video.probes.heads import AttentionalHead, Kind, LinearHead, NeighbourHead
from coca_video.probes.judging import Candidates, Judged, judge, logits_of
from coca_video.probes.sweep import Sweep, SweepConfig, run_sweep, settings_of
from coca_video.probes.tokens import (
    Failed,
    Features,
    Items,
    ReadingConfig,
    Tokens,
    Vectors,
    encode_part,
    normalised,
    pooled,
)


@dataclass
class NeighboursConfig:
    """Every k with every temperature."""

    k: list[int] = field(default_factory=lambda: [1, 5, 10, 20, 50, 100, 200])
    temperature: list[float] = field(default_factory=lambda: [0.07])  # DINO's

    def __post_init__(self) -> None:
        for name in ("k", "temperature"):
            values = getattr(self, name)
            if not values or min(values) <= 0 or len(set(values)) < len(values):
                raise ValueError(f"{name} must be different positive numbers, got {values}")


@dataclass
class ProbeConfig:
    train: list[PartConfig]
    test: PartConfig
    val: PartConfig | None = None  # what settings are chosen by; None: a share of train
    val_share: float = 0.1
    label: str = "class"
    kind: Kind = Kind.attentional
    features: Features | None = None  # of linear (tokens) and knn (embedding); None: those
    candidates: Candidates = Candidates.all
    copies: CopiesConfig = field(default_factory=CopiesConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)  # of attentional and linear
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)  # of knn
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    templates: list[str] = field(default_factory=list)  # prompts of the zero-shot figure beside it; none: no
    token_cache: str = "data/tokens"  # a folder: probes with the same image encoder encode nothing twice
    protocol: str = ""  # whose settings these are

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train must name at least one part, got none")
        if not 0 < self.val_share < 1:
            raise ValueError(f"val_share must be above 0 and below 1, got {self.val_share}")
        if self.features and self.kind is Kind.attentional:
            raise ValueError(
                f"features={self.features.value} is for linear and knn; attentional reads tokens"
            )
        learned = {Path(part.path) for part in self.train + ([self.val] if self.val else [])}
        if Path(self.test.path) in learned:
            raise ValueError(f"test must be none of train and val, got {self.test.path}")
        if self.templates and (self.test.kind is not SourceKind.clips or self.test.subset):
            raise ValueError(
                "templates need a test of kind=clips and without subset; templates=[] is without"
            )

    def feature(self) -> Features | None:
        """None: all tokens."""
        if self.kind is Kind.attentional:
            return None
        return self.features or (Features.tokens if self.kind is Kind.linear else Features.embedding)


@dataclass
class Data:
    """The parts, encoded."""

    classes: Classes
    train: Tokens
    val: Tokens
    test: Tokens
    failed: dict[str, list[Failed]]  # by part

    def about(self) -> dict[str, Any]:
        """In JSON's terms."""
        return {name: self._about(name, getattr(self, name)) for name in ("train", "val", "test")}

    def _about(self, name: str, tokens: Tokens) -> dict[str, Any]:
        sources = [
            {"path": part.config.path, "subset": part.config.subset, "kind": part.config.kind.value}
            | {"views": asdict(part.config.views), "sha256": _hash(part)}
            for part in tokens.parts
        ]
        failed = [
            {"id": each.example.name, "path": each.example.path, "kind": each.kind, "reason": each.reason}
            for each in self.failed[name]
        ]
        examples = sum(len(part) for part in tokens.parts)
        return {"sources": sources, "num_examples": examples, "num_items": len(tokens), "failed": failed}


@dataclass
class Trial:
    """A head of the sweep."""

    setting: dict[str, float]  # lr and weight_decay, or k and temperature
    seed: int
    head: nn.Module
    train_loss: float | None  # of the last steps; None: nothing was learned
    val: dict[str, float] | None = None  # figures; None: diverged

    @property
    def key(self) -> tuple[float, ...]:
        return tuple(self.setting.values())


@dataclass
class Probed:
    """What has come out."""

    data: Data
    trials: list[Trial]
    chosen: list[Trial]  # of the best setting, a seed each
    tested: list[dict[str, float]]  # their figures on the test part
    judged: Judged  # by the first of them, on the test part

    def mean(self) -> dict[str, float]:
        """Of the test's figures, over seeds."""
        return {name: sum(each[name] for each in self.tested) / len(self.tested) for name in self.tested[0]}


def run_probe(
    model: CoCa, preprocessing: Preprocessing, cache: TokenCache, config: ProbeConfig, *, folder: Path
) -> Probed:
    """Learns, chooses by the validation part and looks at the test part once.

    The model is on its device, and stays as it is. folder: keeps an unfinished sweep's state.
    Raises InputError for data that cannot be used, and where every head has diverged.
    """
    if not model.temporal.encodes_frames_alone:
        adaptor = model.config.temporal.adaptor.value
        raise InputError(f"probe: the {adaptor} adaptor encodes a clip's frames together, no tokens are kept")
    data = open_data(model, preprocessing, cache, config)
    feature = config.feature()
    if feature is None:
        train, val, test = data.train, data.val, data.test
    else:
        parts = (data.train, data.val, data.test)
        train, val, test = (pooled(part, model, feature, config=config.reading) for part in parts)
    trials = _trials(model, data, train, config, folder=folder, encoder=cache.encoder)
    _judge_trials(trials, val, data.val, config)
    chosen = choose(trials)
    logits = logits_of([trial.head for trial in chosen], test, config=config.reading)
    judged = [_judged(each, data.test, config) for each in logits]
    return Probed(data, trials, chosen, [each.figures() for each in judged], judged[0])


def open_data(model: CoCa, preprocessing: Preprocessing, cache: TokenCache, config: ProbeConfig) -> Data:
    """The parts with what the cache lacked of them encoded. Raises InputError, see `open_part`, `Tokens`."""
    settings = {
        "label": config.label,
        "frame_size": model.config.image.image_size,
        "preprocessing": preprocessing,
        "reduced_decoding": config.reading.reduced_decoding,
    }
    train = [open_part(each, **settings) for each in config.train]
    classes = classes_of(train, label=config.label)
    train = [part.of(part.examples, copies=config.copies) for part in train]
    if config.val:
        val = [open_part(config.val, **settings)]
    else:
        train, val = map(list, zip(*(held_out(part, config.val_share) for part in train)))
    if len({part.num_items for part in val}) > 1:
        raise InputError("probe.train: parts have different numbers of views; give probe.val")
    test = [open_part(config.test, **settings)]
    for part in (*train, *val, *test):
        for example in part.examples:
            classes.number(example, where=part.config.path)
    failed: dict[str, list[Failed]] = {}
    tokens: dict[str, Tokens] = {}
    for name, parts in (("train", train), ("val", val), ("test", test)):
        encoded = [encode_part(part, cache, model.image_encoder, config=config.reading) for part in parts]
        tokens[name] = Tokens([part for part, _ in encoded], cache, classes)
        failed[name] = [each for _, lost in encoded for each in lost]
    return Data(classes, **tokens, failed=failed)


def _trials(
    model: CoCa, data: Data, train: Items, config: ProbeConfig, *, folder: Path, encoder: str
) -> list[Trial]:
    num_classes = len(data.classes.ids)
    device = next(model.parameters()).device
    if config.kind is Kind.knn:
        bank = normalised(train.content).to(device)
        return [
            Trial(
                {"k": k, "temperature": temperature},
                0,
                NeighbourHead(
                    bank, train.labels.to(device), num_classes=num_classes, k=k, temperature=temperature
                ),
                None,
            )
            for k in config.neighbours.k
            for temperature in config.neighbours.temperature
        ]

    def build() -> nn.Module:
        if isinstance(train, Vectors):
            return LinearHead(*_moments(train.content), num_classes=num_classes)
        image = model.config.image
        return AttentionalHead(image.width, image.num_heads, num_classes=num_classes)

    settings = settings_of(config.sweep, is_random=config.kind is Kind.attentional)
    sweep = Sweep(settings, build, config.sweep, device)
    about = {"probe": asdict(config), "encoder": encoder, "data": data.about()}
    losses = run_sweep(sweep, train, reading=config.reading, folder=folder, about=about)
    return [
        Trial({"lr": each.lr, "weight_decay": each.weight_decay}, each.seed, head, loss)
        for each, head, loss in zip(settings, sweep.heads, losses)
    ]


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature: 'd' each."""
    return features.mean(dim=0), features.std(dim=0, correction=0)


def _judge_trials(trials: list[Trial], items: Items, tokens: Tokens, config: ProbeConfig) -> None:
    logits = logits_of([trial.head for trial in trials], items, config=config.reading)
    for trial, each in zip(trials, logits):
        judged = _judged(each, tokens, config)
        trial.val = judged and judged.figures()


def _judged(logits: Tensor, tokens: Tokens, config: ProbeConfig) -> Judged | None:
    """Examples of all the parts must have as many views."""
    num_views = tokens.parts[0].num_items
    return judge(logits, tokens.labels, num_views=num_views, candidates=config.candidates)


def choose(trials: list[Trial]) -> list[Trial]:
    """The heads of the setting whose mean accuracy is best; where several are, whose mean loss is least.

    A setting of which a head has diverged is none. Raises InputError where none is left.
    """
    by_setting: dict[tuple[float, ...], list[Trial]] = {}
    for trial in trials:
        by_setting.setdefault(trial.key, []).append(trial)
    whole = [each for each in by_setting.values() if all(trial.val for trial in each)]
    if not whole:
        raise InputError("probe.sweep.lr: every head has diverged; take smaller rates")
    return max(whole, key=lambda each: (mean_of(each, "top1"), -mean_of(each, "log_loss")))


def mean_of(trials: list[Trial], figure: str) -> float:
    """Of figures on the validation part."""
    return sum(trial.val[figure] for trial in trials) / len(trials)


def num_expected(part: Part, *, label: str) -> int | None:
    """How many examples the publisher says there are; None: nobody does."""
    card: Card | None = card_of(part)
    if card is None or part.config.subset:
        return None
    return card.subsets.get(label, card.num_expected)


def _hash(part: Part) -> str | None:
    """Of a manifest's file."""
    return file_hash(Path(part.config.path)) if part.config.kind is SourceKind.clips else None
