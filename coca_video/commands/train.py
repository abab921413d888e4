"""`tools/train.py`: a recipe's data, model and settings, wired together and trained."""

import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

import torch

from coca_video.checkpoint import Checkpoint, saved_checkpoints
from coca_video.cli import load_config, pick_device
from coca_video.config import TrainConfig
from coca_video.data.loader import BatchStream, Kind, Source, open_source
from coca_video.data.sampling import Sampling
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Augmentation
from coca_video.errors import InputError
from coca_video.evaluation.embedding import cached_source
from coca_video.files import write_whole
from coca_video.loading import load
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.training.compute import check
from coca_video.training.loop import LoopConfig, train
from coca_video.training.optim import GroupConfig, group_of
from coca_video.training.regimes import Phase, Regime, plan_phases, reached_parameters
from coca_video.training.state import TrainingState

# What may differ between the start of a run and its continuation.
FREE_KEYS = {
    "output",
    "data.num_workers",
    "device",
    "loop.save_every",
    "loop.keep_last",
    # These change no more than roundings, and a run that ran out of memory must be able to go on.
    "loop.compute.micro_batch_size",
    "loop.compute.recompute",
    "loop.compute.compile",
}
SETTINGS_NAME = "settings.json"


def main() -> int:
    config = load_config(TrainConfig, "train", sys.argv[1:])
    output = Path(config.output)
    _check_same_settings(config, output)
    _check_init_is_given(config)
    device = pick_device(config.device)
    torch.manual_seed(config.loop.seed)  # of all new weights, an adaptor's on top of init's too
    init = _load_init(config)
    preprocessing = init.preprocessing if init else config.data.preprocessing
    shared = {
        "frame_size": config.data.frame_size,
        "preprocessing": preprocessing,
        "reduced_decoding": config.data.reduced_decoding,
    }
    sources = [open_source(source, **shared) for source in config.data.sources]
    model, tokenizer = (init.model, init.tokenizer) if init else _new_model(config, sources)
    state = TrainingState(
        model,
        tokenizer,
        preprocessing,
        optimizer=config.loop.optimizer,
        phases=_phases(config.loop, model.config),
        ema_decay=config.loop.ema_decay,
        trained_on=_trained_on(config, init),
        device=device,
    )
    check(model, config.loop.compute)
    if config.data.token_cache is not None:
        _check_token_cache(config, state)
    stream = BatchStream(
        sources,
        config.data.sources,
        tokenizer,
        max_length=model.config.text.context_length,
        num_batches=config.loop.num_steps,
        seed=config.loop.seed,
    )
    _write_settings(config, output)
    print(_summary(config, sources, state, init), file=sys.stderr)
    if config.data.token_cache is not None:
        stream.sources = _cached(config, sources, model)
    finished = train(state, stream, config.loop, output=output, num_workers=config.data.num_workers)
    print(f"{output}: {'finished' if finished else 'stopped and saved'} after step {state.step}")
    return 0 if finished else 130


def _phases(config: LoopConfig, model: CoCaConfig) -> list[Phase]:
    reached = reached_parameters(model, config.loss)
    phases = plan_phases(model, config.tuning, num_steps=config.num_steps, reached=reached)
    trained = {group_of(name) for phase in phases for name in phase.trained}
    if config.patch_dropout and "image_encoder" not in trained:
        hint = f"loop.tuning.regime={config.tuning.regime.value} freezes the image encoder"
        raise InputError(f"loop.patch_dropout: would have no effect: {hint}")
    for group, own in vars(config.optimizer.groups).items():
        if own != GroupConfig() and group not in trained:
            hint = f"loop.tuning.regime={config.tuning.regime.value} and the losses train no such weights"
            raise InputError(f"loop.optimizer.groups.{group}: would have no effect: {hint}")
    return phases


def _check_token_cache(config: TrainConfig, state: TrainingState) -> None:
    """Tokens can be kept only where each step would encode the same frames by the same weights."""
    tuning, image_size = config.loop.tuning, state.image_size
    for phase in state.phases:
        if any(group_of(name) == "image_encoder" for name in phase.trained):
            _refuse_cache(f"loop.tuning.regime={tuning.regime.value} trains the image encoder")
    if not state.model.temporal.encodes_frames_alone:
        adaptor = state.model.config.temporal.adaptor.value
        _refuse_cache(f"model.temporal.adaptor={adaptor} encodes a clip's frames together")
    for i, source in enumerate(config.data.sources):
        if source.kind is Kind.clips and source.sampling is not Sampling.uniform:
            _refuse_cache(f"data.sources[{i}].sampling={source.sampling.value} is random; uniform is not")
    if config.loop.augmentation != Augmentation():
        _refuse_cache("loop.augmentation changes the frames at random; it must have its defaults")
    if config.data.frame_size != image_size:
        _refuse_cache(f"data.frame_size must be the model's {image_size}, got {config.data.frame_size}")


def _refuse_cache(reason: str) -> NoReturn:
    raise InputError(f"data.token_cache: {reason}")


def _cached(config: TrainConfig, sources: list[Source], model: CoCa) -> list[Source]:
    """Encodes what the cache lacks; the sources that read from it."""
    folder, num_workers = config.data.token_cache, config.data.num_workers
    return [
        cached_source(model, source, folder, batch_size=each.batch_size, num_workers=num_workers)
        for source, each in zip(sources, config.data.sources)
    ]


def _trained_on(config: TrainConfig, init: Checkpoint | None) -> list[str]:
    """What the weights will have seen, each data set once."""
    before = init.trained_on if init else []
    return list(dict.fromkeys([*before, *(source.path for source in config.data.sources)]))


def _summary(
    config: TrainConfig, sources: list[Source], state: TrainingState, init: Checkpoint | None
) -> str:
    """What is about to happen: a line on the run, on each of its phases, and on new weights."""
    sizes = {name: parameter.numel() for name, parameter in state.model.named_parameters()}
    total = sum(sizes.values())
    start = ""
    if init:
        share = 1 - sum(sizes[name] for name in init.new_weights) / total
        start = f", {share:.2%} of them from {init.path}"
    counts = zip(sources, config.data.sources)
    data = " and ".join(f"{len(source)} {each.kind.value}" for source, each in counts)
    lines = [f"{config.output}: {total / 1e6:.1f}M parameters{start}, {data}, on {state.device}"]
    lines += [phase.summary(state.model) for phase in state.phases]
    if init and init.new_weights:
        lines.append(f"new weights: {_named_together(init.new_weights, state.model)}")
    return "\n".join(lines)


def _named_together(weights: list[str], model: CoCa) -> str:
    """A weight by its name and shape, the weights of a list of layers by the list's name and how many."""
    together: dict[str, list[str]] = {}
    for name in weights:
        together.setdefault(re.split(r"\.\d+\.", name)[0], []).append(name)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    return ", ".join(
        f"{part} ({len(names)} tensors)" if part not in names else f"{part} {shapes[part]}"
        for part, names in together.items()
    )


def _check_init_is_given(config: TrainConfig) -> None:
    regime = config.loop.tuning.regime
    if config.init is None and regime is not Regime.full:
        reason = "would freeze weights that have learned nothing"
        raise InputError(f"loop.tuning.regime={regime.value} {reason}; give init=CHECKPOINT")


def _load_init(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint to start from: the run's own newest, else `init`.

    Its vocabulary alone may differ from the settings' model.
    """
    saved = saved_checkpoints(Path(config.output))
    start = saved[-1] if saved else config.init  # a run that has begun needs its init no more
    if start is None:
        return None
    init = load(start, temporal=config.model.temporal)
    found, wanted = _plain(init.model.config), _plain(config.model)
    wanted["text"]["vocab_size"] = found["text"]["vocab_size"]
    for key, (has, asks) in _differences(found, wanted).items():
        raise InputError(
            f"{start}: is another model: its {key} is {has}, the settings' model.{key} is {asks}"
        )
    return init


def _new_model(config: TrainConfig, sources: list[Source]) -> tuple[CoCa, Tokenizer]:
    """Fresh weights, and the given tokenizer or one that is learned from the sources' texts."""
    text = config.model.text
    tokenizer = _read_tokenizer(config) if config.tokenizer else None
    try:
        tokenizer = tokenizer or _learn_tokenizer(config, sources)
        text = replace(text, vocab_size=tokenizer.vocab_size)
        return CoCa(replace(config.model, text=text)), tokenizer
    except ValueError as error:  # sizes that do not fit each other
        raise InputError(f"model: {error}") from error


def _read_tokenizer(config: TrainConfig) -> Tokenizer:
    path, wanted = Path(config.tokenizer), config.model.text.vocab_size
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size > wanted:
        found = f"the tokenizer has {tokenizer.vocab_size} ids, the model has {wanted}"
        raise InputError(f"{path}: {found} (model.text.vocab_size)")
    return tokenizer


def _learn_tokenizer(config: TrainConfig, sources: list[Source]) -> Tokenizer:
    corpus = (caption for source in sources for caption in source.texts())
    return Tokenizer.train(corpus, vocab_size=config.model.text.vocab_size)


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
