"""Pictures of four colours, with labels, questions, statements and pairs; and runs that learn them."""

import json
from dataclasses import dataclass
from pathlib import Path

from datasets import TINY_MODEL
from PIL import Image

from coca_video.data.manifest import ClipRecord, write_manifest

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220), "gray": (90, 90, 90)}
TASKS = {
    "classification": "task.label=colour",
    "question_answering": 'task.prompt="{} ?"',
    "entailment": "task.label_smoothing=0.1",
    "picture_pairs": "task.group=group",
}


@dataclass
class TaskSets:
    """Of each task one manifest, and one of captions."""

    root: Path

    def manifest(self, name: str) -> Path:
        return self.root / f"{name}.jsonl"

    def arguments(
        self, output: Path, task: str | None, *changes: str, manifest: str | None = None
    ) -> list[str]:
        """Four steps of four of eight samples; without a task, of captions."""
        path = self.manifest(manifest or task or "captions")
        source = f"{{kind: clips, path: '{path}', batch_size: 4, sampling: uniform}}"
        return [
            "recipe=emoji/image",
            f"output={output}",
            f"data={{frame_size: 16, num_workers: 0, sources: [{source}]}}",
            *TINY_MODEL,
            "model.text.dropout=0.1",
            "loop={num_steps: 4, save_every: 2, keep_last: 2, ema_decay: 0.5}",
            "loop.optimizer={lr: 0.01, num_warmup_steps: 1}",
            "loop.augmentation={degrees: 0, min_scale: 1, max_scale: 1, shift: 0}",
            "loop.augmentation={flip: 0, color: 0, gray: 0}",
            "device=cpu",
            *([f"task={task}", TASKS[task]] if task else []),
            *changes,
        ]


def make_task_sets(root: Path) -> TaskSets:
    sets = TaskSets(root)
    paths = {name: root / f"{name}.png" for name in COLOURS}
    for name, colour in COLOURS.items():
        Image.new("RGB", (20, 16), colour).save(paths[name])
    names = list(COLOURS) * 2
    shown = [(paths[name], name) for name in names]
    write_manifest(sets.manifest("captions"), [ClipRecord(path, f"all is {name}") for path, name in shown])
    write_manifest(
        sets.manifest("classification"), [ClipRecord(path, name, {"colour": name}) for path, name in shown]
    )
    asked = "which colour is it"
    questions = [ClipRecord(path, asked, answers=[name]) for path, name in shown[:4]]
    questions += [ClipRecord(path, asked, answers=[name] * 9 + ["none"]) for path, name in shown[4:]]
    write_manifest(sets.manifest("question_answering"), questions)
    truths = ["entailment", "contradiction", "neutral"]
    statements = [
        ClipRecord(path, f"it is {name}", {"relation": truths[i % 3]}) for i, (path, name) in enumerate(shown)
    ]
    write_manifest(sets.manifest("entailment"), statements)
    pairs = [
        ClipRecord(
            path,
            "both are gray",
            {"answer": str(i % 2 == 0), "group": str(i // 2)},
            second_path=shown[i - 1][0],
        )
        for i, (path, _) in enumerate(shown)
    ]
    write_manifest(sets.manifest("picture_pairs"), pairs)
    return sets


def config_of(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "config.json").read_text())
