"""`tools/train.py`: a recipe's data, model and settings, wired together and trained."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from coca_video.checkpoint import load_checkpoint, load_tokenizer, saved_checkpoints
from coca_video.cli import load_config, pick_device
from coca_video.config import TrainConfig
from coca_video.data.loader import BatchStream, Source, open_source
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.training.loop import train
from coca_video.training.state import TrainingState

# What may differ between the start of a run and its continuation.
FREE_KEYS = {"data.num_workers", "device", "loop.save_every", "loop.keep_last"}


def main() -> int:
    config = load_config(TrainConfig, "train", sys.argv[1:])
    output = Path(config.output)
    _check_same_settings(config, output)
    device = pick_device(config.device)
    shared = {"frame_size": config.data.frame_size, "preprocessing": config.data.preprocessing}
    sources = [open_source(source, **shared) for source in config.data.sources]
    model, tokenizer, preprocessing, seen_before = _start(config, sources)
    state = TrainingState(
        model,
        tokenizer,
        preprocessing,
        optimizer=config.loop.optimizer,
        num_steps=config.loop.num_steps,
        ema_decay=config.loop.ema_decay,
        trained_on=[*seen_before, *(source.path for source in config.data.sources)],
        device=device,
    )
    stream = BatchStream(
        sources,
        config.data.sources,
        tokenizer,
        max_length=model.config.text.context_length,
        num_batches=config.loop.num_steps,
        seed=config.loop.seed,
    )
    _write_settings(config, output)
    finished = train(state, stream, config.loop, output=output, num_workers=config.data.num_workers)
    print(f"{output}: {'finished' if finished else 'stopped and saved'} after step {state.step}")
    return 0 if finished else 130


def _start(config: TrainConfig, sources: list[Source]) -> tuple[CoCa, Tokenizer, Preprocessing, list[str]]:
    """Model, tokenizer, preprocessing and what the weights have seen: of `init`, or new ones."""
    if config.init is not None:
        start = load_checkpoint(config.init, num_time_positions=config.model.num_time_positions)
        _check_same_model(config.model, start.model.config, init=config.init)
        return start.model, start.tokenizer, start.preprocessing, start.trained_on
    saved = saved_checkpoints(Path(config.output))
    if saved:
        tokenizer = load_tokenizer(saved[-1])
    else:
        texts = [text for source in sources for text in source.texts()]
        tokenizer = Tokenizer.train(texts, vocab_size=config.model.text.vocab_size)
    torch.manual_seed(config.loop.seed)
    text = replace(config.model.text, vocab_size=tokenizer.vocab_size)
    return CoCa(replace(config.model, text=text)), tokenizer, config.data.preprocessing, []


def _check_same_model(wanted: CoCaConfig, found: CoCaConfig, *, init: str) -> None:
    """The recipe's model and the checkpoint's may differ in their vocabulary only: it is the checkpoint's."""
    wanted = replace(wanted, text=replace(wanted.text, vocab_size=found.text.vocab_size))
    differing = _differences(asdict(found), asdict(wanted))
    if differing:
        key, (has, asks) = next(iter(differing.items()))
        raise InputError(f"{init}: is another model: its {key} is {has}, the settings' model.{key} is {asks}")


def _check_same_settings(config: TrainConfig, output: Path) -> None:
    """A run that has begun goes on only with the settings that it began with."""
    if not saved_checkpoints(output):
        return
    before = json.loads((output / "settings.json").read_text())
    differing = _differences(before, asdict(config))
    for key in differing.keys() - FREE_KEYS:
        was, now = differing[key]
        raise InputError(f"{output}: holds a run with {key} = {was}, not {now}; set output= to another folder")


def _write_settings(config: TrainConfig, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "settings.json").write_text(json.dumps(asdict(config), indent=1))


def _differences(first: dict, second: dict, *, prefix: str = "") -> dict[str, tuple]:
    """Dotted key -> (first's value, second's value) where nested dictionaries differ."""
    found: dict[str, tuple] = {}
    for key in first.keys() | second.keys():
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= _differences(a, b, prefix=f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = (a, b)
    return found
