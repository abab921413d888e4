"""`tools/train.py`: a recipe's data, model and settings, wired together and trained."""

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import NoReturn

import torch

from coca_video.checkpoint import TASK_HEAD, Checkpoint, saved_checkpoints
from coca_video.cli import pick_device
from coca_video.commands.evaluations import open_evaluations
from coca_video.commands.task_runs import begin_task, give_head, load_train_config
from coca_video.config import TrainConfig
from coca_video.data.bad_samples import BAD_SAMPLES_NAME, BadSample, bad_samples_of
from coca_video.data.captions import Caption
from coca_video.data.loader import BatchStream
from coca_video.data.mixing import Mixing
from coca_video.data.sampling import Sampling
from coca_video.data.sources import Kind, Source, SourceConfig, open_source
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Augmentation, Preprocessing
from coca_video.errors import InputError
from coca_video.evaluation.embedding import cached_source
from coca_video.files import write_whole
from coca_video.loading import load
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.ops.distributed import by_first, joined, num_processes, rank
from coca_video.tasks.task import Task
from coca_video.training.compute import Accumulation, check
from coca_video.training.loop import LoopConfig, train
from coca_video.training.optim import GroupConfig, OptimizerConfig, group_of
from coca_video.training.regimes import Phase, Regime, plan_phases, reached_by_task, reached_parameters
from coca_video.training.run_lock import locked
from coca_video.training.signals import Ending
from coca_video.training.state import TrainingState

# What may differ between the start of a run and its continuation.
FREE_KEYS = {
    "output",
    "data.num_workers",
    "data.timeout",
    "data.max_bad_share",
    "device",
    "evaluations",
    "loop.save_every",
    "loop.save_in_background",
    "loop.keep_last",
    "loop.evaluate_every",
    "loop.best",
    # These change no more than roundings, and a run that ran out of memory must be able to go on.
    "loop.compute.micro_batch_size",
    "loop.compute.recompute",
    "loop.compute.compile",
    "loop.loss.ring",
}
FREE_PARTS = ("loop.parallel.", "loop.log.")
NUM_STEPS = "loop.num_steps"
SIZES = "samples of each source"  # in the settings of a run: the order of samples depends on them
MAX_TEXTS = 10_000_000  # of a source, that a tokenizer is learned from
SETTINGS_NAME = "settings.json"
PATIENCE = timedelta(hours=2)  # with other processes


def main(own: Sequence[type[Task]] = ()) -> int:
    """own: tasks that are not in the catalogue, by which `task=NAME` and checkpoints may call them."""
    config = load_train_config(sys.argv[1:], own)
    device = pick_device(config.device)
    with joined(device, timeout=PATIENCE):
        return _train(config, device)


def _train(config: TrainConfig, device: torch.device) -> int:
    output = Path(config.output)
    by_first(lambda: _check_same_settings(config, output))
    _check_init_is_given(config)
    torch.manual_seed(config.loop.seed)  # of all new weights, an adaptor's on top of init's too
    init = _load_init(config)
    preprocessing = init.preprocessing if init else config.data.preprocessing
    sources = _open_sources(config, preprocessing)
    task, like = begin_task(config, sources) if config.task else (None, None)
    model, tokenizer = (init.model, init.tokenizer) if init else _new_model(config, sources)
    head = give_head(model, task, init, goes_on=bool(saved_checkpoints(output))) if task else None
    stream = _open_stream(config, sources, tokenizer, max_length=model.config.text.context_length)
    config.loop.num_steps = len(stream)
    sizes = [len(source) for source in sources]
    by_first(lambda: _check_same_settings(config, output, sizes=sizes))
    check(model, config.loop.compute)
    state = TrainingState(
        model,
        tokenizer,
        preprocessing,
        optimizer=config.loop.optimizer,
        phases=_phases(config.loop, model.config, task, like),
        ema_decay=config.loop.ema_decay,
        trained_on=_trained_on(config, init),
        device=device,
        watch=config.loop.watch,
        parallel=config.loop.parallel,
        precision=config.loop.compute.precision,
        task=task,
    )
    if config.data.token_cache is not None:
        _check_token_cache(config, state)
    evaluate = open_evaluations(config, device, trained_on=state.about.trained_on, task=task)
    with locked(output):
        by_first(lambda: _write_settings(config, output, sizes))
        if rank() == 0:
            print(_summary(config, sources, state, init, stream, head), file=sys.stderr)
        if config.data.token_cache is not None:
            stream.sources = _cached(config, sources, model)
        ending = train(state, stream, config.loop, config.data, output=output, evaluate=evaluate)
    if rank() == 0:
        if left_out := bad_samples_of(output):
            print(left_out, file=sys.stderr)
        how = "finished" if ending is Ending.finished else "stopped and saved"
        print(f"{output}: {how} after step {state.step}")
    return ending.exit_code


def _open_sources(config: TrainConfig, preprocessing: Preprocessing) -> list[Source]:
    shared = {
        "frame_size": config.data.frame_size,
        "preprocessing": preprocessing,
        "reduced_decoding": config.data.reduced_decoding,
    }
    # One process looks at files, which may be many and far away, for all.
    return by_first(lambda: [open_source(source, **shared) for source in config.data.sources])


def _open_stream(
    config: TrainConfig, sources: list[Source], tokenizer: Tokenizer, *, max_length: int
) -> BatchStream:
    loop, data = config.loop, config.data
    num_steps = None if loop.num_epochs else loop.num_steps
    if loop.num_samples:
        num_steps = math.ceil(loop.num_samples / data.mean_batch_size)
    return BatchStream(
        sources,
        data.sources,
        tokenizer,
        max_length=max_length,
        num_batches=num_steps,
        seed=loop.seed,
        mixing=data.mixing,
        num_epochs=loop.num_epochs,
        rank=rank(),
        num_ranks=num_processes(),
    )


def _phases(config: LoopConfig, model: CoCaConfig, task: Task | None, like: Caption | None) -> list[Phase]:
    """like: what the task asks of some record."""
    reached = reached_by_task(model, task, like) if task else reached_parameters(model, config.loss)
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
        if source.kind is not Kind.pictures and source.sampling is not Sampling.uniform:
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
    config: TrainConfig,
    sources: list[Source],
    state: TrainingState,
    init: Checkpoint | None,
    stream: BatchStream,
    head: str | None,
) -> str:
    """What is about to happen: lines on the run, its processes, its phases, new weights, and its data."""
    sizes = {name: parameter.numel() for name, parameter in state.model.named_parameters()}
    total = sum(sizes.values())
    start = ""
    if init:
        share = 1 - sum(sizes[name] for name in init.new_weights) / total
        start = f", {share:.2%} of them from {init.path}"
    data = " and ".join(map(_size, sources, config.data.sources))
    lines = [f"{config.output}: {total / 1e6:.1f}M parameters{start}, {data}, on {state.device}"]
    if num_processes() > 1:
        lines.append(_division(config, stream))
    lines += [phase.summary(state.model) for phase in state.phases]
    if head:
        lines.append(head)
    if init and (new := [name for name in init.new_weights if not name.startswith(TASK_HEAD)]):
        lines.append(f"new weights: {_named_together(new, state.model)}")
    lines.append(_steps(config, sources, stream))
    if problems := stream.problems:
        lines.append(_cut_short(problems, Path(config.output)))
    return "\n".join(lines)


def _size(source: Source, config: SourceConfig) -> str:
    """'6 clips', '14 samples in 2 shards'."""
    what = "samples" if config.kind is Kind.shards else config.kind.value
    where = "" if config.kind is Kind.clips else f" in {len(source.sizes):,} shards"
    return f"{len(source):,} {what}{where}"


def _steps(config: TrainConfig, sources: list[Source], stream: BatchStream) -> str:
    """'8 steps of 6 samples: 16 (33%, 4.00 epochs) of clips.jsonl, 32 (67%, 2.00 epochs) of pictures'."""
    sizes = [str(source.batch_size) for source in config.data.sources]
    together = config.data.mixing is Mixing.together
    batch = str(stream.batch_size) if together else " or ".join(dict.fromkeys(sizes))
    counts = stream.counts_before(len(stream))
    read = [
        f"{count:,} ({count / sum(counts):.0%}, {count / len(source):.2f} epochs) of {source.path}"
        for count, source in zip(counts, sources)
    ]
    return f"{len(stream):,} steps of {batch} samples: {', '.join(read)}"


def _cut_short(problems: list[BadSample], output: Path) -> str:
    first, where = problems[0], output / BAD_SAMPLES_NAME
    return f"damaged shards: {len(problems)}, listed in {where}; the first: {first.key}: {first.reason}"


def _division(config: TrainConfig, stream: BatchStream) -> str:
    """'batches of 128 over 2 processes (ddp): 64 rows each, in 4 micro-batches of 16'."""
    rows, micro = math.ceil(stream.batch_size / num_processes()), config.loop.compute.micro_batch_size
    how = f"{num_processes()} processes ({config.loop.parallel.sharing.value})"
    parts = f", in {math.ceil(rows / micro)} micro-batches of {min(micro, rows)}" if micro else ""
    return f"batches of {stream.batch_size} over {how}: {rows} rows each{parts}"


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
    if regime is Regime.task_head and config.task is None:
        raise InputError("loop.tuning.regime=task_head: there is no such head; give task=NAME")
    if config.init is None and (anchors := _anchors(config.loop.optimizer)):
        raise InputError(
            f"{anchors[0]}: would pull to weights that have learned nothing; give init=CHECKPOINT"
        )
    if config.init is None and regime is not Regime.full:
        reason = "would freeze weights that have learned nothing"
        raise InputError(f"loop.tuning.regime={regime.value} {reason}; give init=CHECKPOINT")


def _anchors(optimizer: OptimizerConfig) -> list[str]:
    """The settings that ask for a pull to the start."""
    of_groups = {f"groups.{name}.": own.anchor for name, own in vars(optimizer.groups).items()}
    asked = {"": optimizer.anchor} | of_groups
    return [f"loop.optimizer.{where}anchor" for where, anchor in asked.items() if anchor]


def _load_init(config: TrainConfig) -> Checkpoint | None:
    """The checkpoint to start from: the run's own newest, else `init`.

    Its vocabulary alone may differ from the settings' model.
    """
    saved = by_first(lambda: saved_checkpoints(Path(config.output)))
    start = saved[-1] if saved else config.init  # a run that has begun needs its init no more
    if start is None:
        return None
    init = load(start, temporal=config.model.temporal, image_size=config.model.image.image_size)
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
    def learn() -> str:
        corpus = (caption for source in sources for caption in islice(source.texts(), MAX_TEXTS))
        return Tokenizer.train(corpus, vocab_size=config.model.text.vocab_size).to_json()

    return Tokenizer(by_first(learn))


def _check_same_settings(config: TrainConfig, output: Path, *, sizes: list[int] | None = None) -> None:
    """A run that has begun goes on only with the settings that it began with, and the same data.

    sizes: samples of each source; None before they are known, and with them the number of steps.
    """
    if not saved_checkpoints(output):
        return
    before, now = _read_settings(output), _plain(config) | {SIZES: sizes}
    unknown = set() if sizes else {SIZES, *([NUM_STEPS] if _counts_samples(config) else [])}
    if SIZES not in before:  # of an older version
        unknown.add(SIZES)
    for key, (was, now) in _differences(before, now).items():
        if key not in unknown and not _is_free(key, config):
            raise InputError(
                f"{output}: holds a run with {key} = {was}, not {now}; set output= to another folder"
            )


def _is_free(key: str, config: TrainConfig) -> bool:
    compute = config.loop.compute
    if key == "loop.compute.micro_batch_size" and compute.accumulation is Accumulation.separate:
        return False  # its rows are each other's negatives
    return key in FREE_KEYS or key.startswith(FREE_PARTS)


def _counts_samples(config: TrainConfig) -> bool:
    """Whether the number of steps comes of the data."""
    return bool(config.loop.num_epochs or config.loop.num_samples)


def _read_settings(output: Path) -> dict:
    path = output / SETTINGS_NAME
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the settings of this folder's run cannot be read ({error})") from error


def _write_settings(config: TrainConfig, output: Path, sizes: list[int]) -> None:
    settings = _plain(config) | {SIZES: sizes}
    write_whole(output / SETTINGS_NAME, json.dumps(settings, indent=1) + "\n")


def _plain(config: TrainConfig | CoCaConfig) -> dict:
    """As JSON keeps it: enums become their values."""
    values = asdict(config)
    if task := getattr(config, "task", None):
        values["task"] = task.describe()
    return json.loads(json.dumps(values))


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
