"""A run's life in several processes: what each of them does, where it can import it."""

from pathlib import Path

from runs import Interrupted, Recorded, checkpoint, run

from coca_video.ops.distributed import num_processes, rank
from coca_video.training.signals import Ending

# Dropout is each process' own. Augmentation is not: every row gets what one process would give it.
# With AdamW's own eps, gradients that are nothing but roundings would move weights.
CHANGES = ["model.image.dropout=0", "model.text.dropout=0", "loop.optimizer.eps=1e-4", "loop.keep_last=3"]


class Traced(Interrupted, Recorded):
    """The batches of all lives of one process are in one record."""


def record_of(folder: Path, number: int) -> Path:
    return folder / f"{number}.jsonl"


def stop_after(folder: Path, root: Path, step: int, sharing: str, _: int) -> None:
    """Of two processes only the last one is asked to stop; both do, after the same step."""
    at = step - 1 if rank() == num_processes() - 1 else -1
    stream = type("Stopped", (Traced,), {"at": at, "record": record_of(folder, rank())})
    state, ending = run(root, folder / "run", *CHANGES, f"loop.parallel.sharing={sharing}", stream=stream)
    assert ending is Ending.interrupted and state.step == step
    assert checkpoint(folder / "run", step).exists()
