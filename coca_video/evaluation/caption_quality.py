"""How good the captions of a data set's clips are, beside its own."""

import re
from dataclasses import dataclass, field

from coca_video.data.manifest import ClipRecord
from coca_video.evaluation.captioning import DecodingConfig
from coca_video.evaluation.selection import Evaluated, Selection
from coca_video.evaluation.subject import VIDEO
from coca_video.metrics.captioning import caption_scores
from coca_video.metrics.java import java_scores

NUMBER = re.compile("0|[1-9][0-9]{0,17}")  # written in one way only: ids stay apart


@dataclass
class CaptionConfig:
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    subset: str = ""  # see selection.Evaluated.select; every clip is captioned, these are judged
    group_by: str = ""  # a label: figures for each of its values too (NoCaps: domain)
    java: bool = True  # METEOR and SPICE, where java and pycocoevalcap are there


def judge_captions(evaluated: Evaluated, config: CaptionConfig) -> tuple[dict, dict[int, dict]]:
    """Figures of every reading that has captions, and the caption of each clip by number of its record."""
    chosen = evaluated.select(config.subset)
    captions = {
        reading: [texts[row] for row in chosen.rows] for reading, texts in evaluated.features.captions.items()
    }
    references = [record.texts for record in chosen.records]
    figures = chosen.counts() | {
        "num_references": sum(map(len, references)),
        "decoding": str(config.decoding),
        "prompt": config.decoding.prompt,
        "figures": {reading: caption_figures(texts, references) for reading, texts in captions.items()},
    }
    if config.java:
        scores, reasons = java_scores(captions[VIDEO], references)
        figures["figures"][VIDEO] |= scores
        figures["not_computed"] = reasons
    if config.group_by:
        figures["by_group"] = _by_group(chosen, captions[VIDEO], references, config.group_by)
    written = zip(evaluated.features.indices, evaluated.features.captions[VIDEO])
    return figures, {i: {"caption": caption} for i, caption in written}


def caption_figures(captions: list[str], references: list[list[str]]) -> dict[str, float]:
    """`caption_scores`, exact matches in per cent."""
    scores = caption_scores(captions, references)
    return scores | {"exact_match": 100 * scores["exact_match"]}


def coco_results(records: list[ClipRecord], captions: list[str]) -> list[dict]:
    """COCO's results format: [{"image_id": ..., "caption": ...}], ids as numbers where they are."""
    return [
        {"image_id": id_of(record), "caption": caption}
        for record, caption in zip(records, captions, strict=True)
    ]


def id_of(record: ClipRecord) -> int | str:
    """A record's name, as a number if it is one."""
    return int(record.name) if NUMBER.fullmatch(record.name) else record.name


def _by_group(
    chosen: Selection, captions: list[str], references: list[list[str]], label: str
) -> dict[str, dict]:
    """Figures of the records of each value of a label; document frequencies are counted within each."""
    values = [record.labels.get(label, "") for record in chosen.records]
    groups = {}
    for value in sorted(set(values)):
        rows = [row for row, each in enumerate(values) if each == value]
        of_group = caption_figures([captions[row] for row in rows], [references[row] for row in rows])
        groups[value] = {"num_evaluated": len(rows)} | of_group
    return groups
