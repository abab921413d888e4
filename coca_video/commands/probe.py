"""`tools/probe.py`: what a frozen encoder's features know of a data set's classes."""

import csv
import io
import re
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import stdev
from typing import Any

from coca_video import __version__
from coca_video.checkpoint import Checkpoint
from coca_video.cli import PARTIAL, load_config, pick_device
from coca_video.commands.scan import printable
from coca_video.config import ProbeCommandConfig
from coca_video.evaluation.benchmark import (
    BenchmarkConfig,
    Outcome,
    check_not_seen,
    evaluate_benchmark,
    write_outcome,
)
from coca_video.evaluation.embedding import open_token_cache
from coca_video.evaluation.parts import LoadingConfig
from coca_video.evaluation.subject import CocaSubject
from coca_video.evaluation.zero_shot import ClassificationConfig, Classified, best
from coca_video.files import write_whole, write_whole_bytes
from coca_video.loading import load
from coca_video.metrics.classification import class_accuracy, confusion
from coca_video.probes.examples import card_of
from coca_video.probes.heads import save_head
from coca_video.probes.probe import ProbeConfig, Probed, Trial, mean_of, num_expected, run_probe
from coca_video.probes.sweep_picture import sweep_picture

FORMAT = "probe-1"  # of result.json: another one than evaluations', whose figures these must not be taken for
NUM_PRINTED = 5  # examples that could not be read
FIGURES = ("top1", "top5", "mean_class_accuracy")  # that are printed


def main() -> int:
    settings = load_config(ProbeCommandConfig, "probe", sys.argv[1:])
    config, device = settings.probe, pick_device(settings.device)
    checkpoint = load(settings.checkpoint)
    check_not_seen(config.test.path, checkpoint.trained_on, who=f"{checkpoint.path}:")
    checkpoint.model.to(device)
    output = Path(settings.output or default_output(settings))
    cache = open_token_cache(checkpoint.model, config.token_cache)
    probed = run_probe(checkpoint.model, checkpoint.preprocessing, cache, config, folder=output)
    output.mkdir(parents=True, exist_ok=True)
    kept = config.token_cache if config.test.views.num_views == 1 else None  # where the probe has put them
    subject = CocaSubject(checkpoint, device, token_cache=kept)
    zero_shot = _zero_shot(subject, config, output / "zero-shot") if config.templates else None
    result = _result(settings, checkpoint, subject, probed, zero_shot)
    _write(output, result, probed, config)
    print(summary(result))
    print(f"written: {output / 'result.json'}, {output / 'predictions.jsonl'}, {output / 'head.safetensors'}")
    return PARTIAL if result["gaps"] else 0


def default_output(settings: ProbeCommandConfig) -> Path:
    """Beside the run that is probed; what is no folder here (a file, a Hub id) has none."""
    run = Path(settings.checkpoint)
    folder = run if run.is_dir() else Path("runs") / re.sub(r"[/:]+", "-", settings.checkpoint)
    return folder / "probe" / f"{Path(settings.probe.test.path).stem}-{settings.probe.kind.value}"


def _zero_shot(subject: CocaSubject, config: ProbeConfig, folder: Path) -> dict[str, Any]:
    """The checkpoint's own reading of the same clips, without learning: figures by reading."""
    reading = config.reading
    benchmark = BenchmarkConfig(
        config.test.path,
        protocol="zero-shot, beside a probe",
        views=config.test.views,
        loading=LoadingConfig(
            num_workers=reading.num_workers,
            timeout=reading.timeout,
            reduced_decoding=reading.reduced_decoding,
        ),
        classification=ClassificationConfig(config.label, config.templates),
    )
    outcome = evaluate_benchmark(subject, benchmark, output=folder)
    task = outcome.result["tasks"]["classification"]
    lead = outcome.result["protocol"]["reading"]
    return {
        "reading": lead,
        "num_evaluated": task["num_evaluated"],
        "num_classes": task["num_classes"],
        "prompts": task["templates"]["prompts"],
        "figures": task["figures"][lead],
        "readings": task["figures"],
    }


def _result(
    settings: ProbeCommandConfig,
    checkpoint: Checkpoint,
    subject: CocaSubject,
    probed: Probed,
    zero_shot: dict[str, Any] | None,
) -> dict[str, Any]:
    config, part = settings.probe, probed.data.test.parts[0]
    card, expected = card_of(part), num_expected(part, label=config.label)
    data = probed.data.about()
    return {
        "format": FORMAT,
        "dataset": card.dataset if card else Path(config.test.path).stem,
        "title": card.title if card else Path(config.test.path).stem,
        "split": card.split if card else "",
        "num_expected": expected,
        "num_evaluated": len(part),
        "gaps": _gaps(data, len(part), expected),
        "notes": _notes(config, checkpoint),
        "model": subject.describe(),
        "protocol": {"name": config.protocol, **subject.protocol()},
        "probe": asdict(config)
        | {"features": feature.value if (feature := config.feature()) else "all tokens"},
        "data": data,
        "num_classes": len(probed.data.classes.ids),
        "num_candidates": len(probed.judged.candidates),
        "chosen": probed.chosen[0].setting,
        "val": {name: mean_of(probed.chosen, name) for name in probed.chosen[0].val},
        "test": probed.mean(),
        "test_of_seeds": probed.tested,
        "zero_shot": zero_shot,
        "versions": {"coca_video": __version__},
    }


def _gaps(data: dict[str, Any], num_evaluated: int, expected: int | None) -> list[str]:
    """What could be expected and is absent."""
    gaps = [
        f"{len(part['failed'])} examples of {name} could not be read"
        for name, part in data.items()
        if part["failed"]
    ]
    if expected is not None and num_evaluated != expected:
        gaps.append(f"test: {num_evaluated:,} examples, the official number is {expected:,}")
    return gaps


def _notes(config: ProbeConfig, checkpoint: Checkpoint) -> list[str]:
    seen = {Path(source).name for source in checkpoint.trained_on}
    if config.val and Path(config.val.path).name in seen:
        return [f"the encoder was trained on {config.val.path}, by which settings were chosen"]
    return []


def _write(output: Path, result: dict[str, Any], probed: Probed, config: ProbeConfig) -> None:
    """result.json last, see `write_outcome`."""
    write_whole(output / "sweep.csv", sweep_table(probed.trials))
    write_whole_bytes(output / "sweep.png", _picture(probed, config))
    about = {
        "classes": probed.data.classes.names,
        "class_ids": probed.data.classes.ids,
        "label": config.label,
        "features": result["probe"]["features"],
        "setting": result["chosen"],
        "views": asdict(config.test.views),
        "model": result["model"],
    }
    save_head(output, probed.chosen[0].head, about)
    judged, part = probed.judged, probed.data.test.parts[0]
    names = [probed.data.classes.names[i] for i in judged.candidates]
    by_class = class_accuracy(judged.scores, judged.labels)
    tops = [{"top_classes": best(row, names)} for row in judged.probabilities]
    predictions = [
        {"id": each.name, "path": each.path, "text": each.text, "labels": each.labels} | top
        for each, top in zip(part.examples, tops)
    ]
    classified = Classified(
        figures={},
        listed={},
        classes=names,
        accuracy=by_class.accuracy.tolist(),
        support=by_class.support.tolist(),
        confusion=confusion(judged.scores, judged.labels),
    )
    write_outcome(Outcome(result, predictions, classified, captions=None), output)


def sweep_table(trials: list[Trial]) -> str:
    """CSV: a line a head. Figures are those of the validation part; without any, a head has diverged."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    names = list(next((trial.val for trial in trials if trial.val), {}))
    writer.writerow([*trials[0].setting, "seed", "train_loss", *(f"val_{name}" for name in names)])
    for trial in trials:
        loss = "" if trial.train_loss is None else f"{trial.train_loss:.4f}"
        values = [f"{trial.val[name]:.4f}" if trial.val else "" for name in names]
        writer.writerow([*(f"{value:g}" for value in trial.setting.values()), trial.seed, loss, *values])
    return table.getvalue()


def _picture(probed: Probed, config: ProbeConfig) -> bytes:
    """A PNG of the sweep's mean accuracies on the validation part."""
    row, column = probed.trials[0].setting
    by_setting: dict[tuple[float, ...], list[Trial]] = {}
    for trial in probed.trials:
        by_setting.setdefault(trial.key, []).append(trial)
    values = {
        key: mean_of(trials, "top1") if all(trial.val for trial in trials) else None
        for key, trials in by_setting.items()
    }
    rows, columns = (list(dict.fromkeys(values_of)) for values_of in zip(*values))
    picture = sweep_picture(
        values,
        rows=(row, rows),
        columns=(column, columns),
        chosen=probed.chosen[0].key,
        title=f"{config.kind.value} probe, top-1 accuracy on the validation part, %",
    )
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def summary(result: dict[str, Any]) -> str:
    """The figures as a small table."""
    probe, data = result["probe"], result["data"]
    rows = [
        f"{result['title']} {result['split']}, {result['model']['checkpoint']}, frozen".replace("  ", " ")
    ]
    rows += [
        f"{name}: {part['num_examples']:,} examples, {part['num_items']:,} items"
        for name, part in data.items()
    ]
    among = f"among {result['num_candidates']:,} of {result['num_classes']:,} classes"
    chosen = ", ".join(f"{name} {value:g}" for name, value in result["chosen"].items())
    rows.append(f"{probe['kind'].value} probe of {probe['features']}, {among}; chosen: {chosen}")
    columns = {"val": result["val"], "test": result["test"]}
    if result["zero_shot"]:
        columns["zero-shot"] = result["zero_shot"]["figures"]
    rows.append(f"{'':24}" + "".join(f"{name:>12}" for name in columns))
    for name in FIGURES:
        rows.append(f"  {name:22}" + "".join(f"{values[name]:12.2f}" for values in columns.values()))
    tops = [each["top1"] for each in result["test_of_seeds"]]
    if len(tops) > 1:
        rows.append(f"test top1 over {len(tops)} seeds: standard deviation {stdev(tops):.2f}")
    failed = [each for part in data.values() for each in part["failed"]]
    rows += [f"could not be read: {printable(each['reason'])}" for each in failed[:NUM_PRINTED]]
    rows += [f"incomplete: {gap}" for gap in result["gaps"]]
    return "\n".join(rows + [f"note: {note}" for note in result["notes"]])
