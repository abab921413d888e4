"""`tools/train.py`: a recipe's data, model and settings, wired together and trained."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from coca_video.checkpoint import Checkpoint, load_checkpoint, saved_checkpoints
from coca_video.cli import load_config, pick_device
from coca_video.config import TrainConfig
from coca_video.data.loader import BatchStream, Source, open_source
from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError
from coca_video.files import write_whole
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.training.loop import train
from coca_video.training.state import TrainingState

# What may differ between the start of a run and its continuation.
FREE_KEYS = {"output", "data.num_workers", "device", "loop.save_every", "loop.keep_last"}
SETTINGS_NAME = "settings.json"


def main() -> int:
    config = load_config(TrainConfig, "train", sys.argv[1:])
    output = Path(config.output)
    _check_same_settings(config, output)
    device = pick_device(config.device)
    init = _load_init(config)
    preprocessing = init.preprocessing if init else config.data.preprocessing
    shared = {"frame_size": config.data.frame_size, "preprocessing": preprocessing}
    sources = [open_source(source, **shared) for source in config.data.sources]
    model, tokenizer = (init.model, init.tokenizer) if init else _new_model(config, sources)
    state = TrainingState(
        model,
        tokenizer,
        preprocessing,
        optimizer=config.loop.optimizer,
        num_steps=config.loop.num_steps,
        ema_decay=config.loop.ema_decay,
        trained_on=_trained_on(config, init),
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
    print(_summary(config, sources, state), file=sys.stderr)
    finished = train(state, stream, config.loop, output=output, num_workers=config.data.num_workers)
    print(f"{output}: {'finished' if finished else 'stopped and saved'} after step {state.step}")
    return 0 if finished else 130


def _trained_on(config: TrainConfig, init: Checkpoint | None) -> list[str]:
    """What the weights will have seen, each data set once."""
    before = init.trained_on if init else []
    return list(dict.fromkeys([*before, *(source.path for source in config.data.sources)]))


def _summary(config: TrainConfig, sources: list[Source], state: TrainingState) -> str:
    """What is about to happen, in a line."""
    num_parameters = sum(parameter.numel() for parameter in state.model.parameters())
    counts = zip(sources, config.data.sources)
    data = " and ".join(f"{len(source)} {each.kind.value}" for source, each in counts)
    start = f", from {config.init}" if config.init else ""
    return f"{config.output}: {num_parameters / 1e6:.1f}M parameters{start}, {data}, on {state.device}"


def _load_init(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint to start from: the run's own newest, else `init`.

    Its vocabulary alone may differ from the settings' model.
    """
    saved = saved_checkpoints(Path(config.output))
    start = saved[-1] if saved else config.init  # a run that has begun needs its init no more
    if start is None:
        return None
    init = load_checkpoint(start, num_time_positions=config.model.num_time_positions)
    found, wanted = _plain(init.model.config), _plain(config.model)
    wanted["text"]["vocab_size"] = found["text"]["vocab_size"]
    for key, (has, asks) in _differences(found, wanted).items():
        raise InputError(
            f"{start}: is another model: its {key} is {has}, the settings' model.{key} is {asks}"
        )
    return init


def _new_model(config: TrainConfig, sources: list[Source]) -> tuple[CoCa, Tokenizer]:
    """Fresh weights from the seed, and a tokenizer of the sources' texts."""
    text = config.model.text
    corpus = (caption for source in sources for caption in source.texts())
    try:
        tokenizer = Tokenizer.train(corpus, vocab_size=text.vocab_size)
        torch.manual_seed(config.loop.seed)
        text = replace(text, vocab_size=tokenizer.vocab_size)
        return CoCa(replace(config.model, text=text)), tokenizer
    except ValueError as error:  # sizes that do not fit each other
        raise InputError(f"model: {error}") from error


def _check_same_settings(config: TrainConfig, output: Path) -> None:
    """A run that has begun goes on only with the settings that it began with."""
    if not saved_checkpoints(output):
        return
    path = output / SETTINGS_NAME
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the settings of this folder's run cannot be read ({error})") from error
    for key, (was, now) in _differences(before, _plain(config)).items():
        if key not in FREE_KEYS:
            raise InputError(
                f"{output}: holds a run with {key} = {was}, not {now}; set output= to another folder"
            )


def _write_settings(config: TrainConfig, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / SETTINGS_NAME, json.dumps(_plain(config), indent=1) + "\n")


def _plain(config: TrainConfig | CoCaConfig) -> dict:
    """As JSON keeps it: enums become their values."""
    return json.loads(json.dumps(asdict(config)))


def _differences(first: dict, second: dict, *, prefix: str = "") -> dict[str, tuple]:
    """Dotted key -> (first's value, second's value) where nested dictionaries differ."""
    found: dict[str, tuple] = {}
    for key in sorted(first.keys() | second.keys()):
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= _differences(a, b, prefix=f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = (a, b)
    return found
