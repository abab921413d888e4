"""The columns of a comparison's tables, by task."""

from collections.abc import Callable
from dataclasses import dataclass

from coca_video.data.benchmarks.snli_ve import RELATIONS


@dataclass(frozen=True)
class Column:
    name: str
    metric: str  # of published.METRICS, or one that nobody publishes
    group: str = ""  # stands above the names of several columns
    factor: float = 1.0  # from a result's unit to the table's
    best: Callable | None = max  # of its values; None where none is better than another
    key: str = ""  # in a result's figures, if not `metric`; in either, dots part the keys on the way

    @property
    def full_name(self) -> str:
        return f"{self.group} {self.name}".strip()


def _ranking(direction: str, group: str) -> tuple[Column, ...]:
    recalls = [Column(f"R@{k}", f"{direction}.R@{k}", group) for k in (1, 5, 10)]
    ranks = [Column(f"{how} rank", f"{direction}.{how}_rank", group, best=min) for how in ("median", "mean")]
    return (*recalls, *ranks)


_TOP = (
    Column("top-1", "top1"),
    Column("top-5", "top5"),
    Column("mean of both", "mean_top1_top5"),
    Column("mean of classes", "mean_class_accuracy"),
)
COLUMNS = {
    "classification": _TOP,
    "retrieval": (*_ranking("text_to_video", "text → clip"), *_ranking("video_to_text", "clip → text")),
    "captioning": (
        Column("BLEU-4", "bleu4", factor=100, key="bleu_4"),
        Column("METEOR", "meteor", factor=100),
        Column("ROUGE-L", "rouge_l", factor=100),
        Column("CIDEr", "cider_d", factor=100),
        Column("SPICE", "spice", factor=100),
        Column("exact matches", "exact_match"),
        Column("distinct captions", "distinct_ratio", factor=100),
        Column("repeated 4-grams", "repeated_ngrams", factor=100, best=min),
        Column("mean length", "mean_length", best=None),
    ),
    "head": (
        Column("accuracy", "accuracy"),
        Column("consistency", "consistency"),
        *_TOP,
        Column("distinct answers", "distinct", factor=100, best=None),
        *(Column(name, f"answer_type.{name}", "by type of answer") for name in ("yes/no", "number", "other")),
        *(Column(name, f"relation.{name}", "by relation") for name in RELATIONS),
    ),
}
HEADLINES = {  # metrics of the summary
    "classification": ("top1",),
    "retrieval": ("text_to_video.R@1", "video_to_text.R@1"),
    "captioning": ("cider_d",),
    "head": ("accuracy", "top1"),
}
UNITS = {
    "classification": "Per cent of examples; a tie counts against the model.",
    "retrieval": "R@k: per cent of queries with a right answer among the first k. Ranks begin at 1, less is "
    "better. A tie counts against the model. A picture is a clip of one frame.",
    "captioning": "BLEU, METEOR, ROUGE, CIDEr (CIDEr-D) and SPICE times 100, as papers print them; exact "
    "matches and distinct captions in per cent. Repeated 4-grams: per cent of a caption’s that stand earlier "
    "in it, less is better. Lengths are in words.",
    "head": "Per cent of examples; a tie counts against the model. Of questions with several annotators the "
    "accuracy is VQA’s. Consistency: per cent of statements that are judged rightly of all their pairs.",
}
TITLES = {"head": "learned task"}  # of tables, where it is not the task's name
