"""Training from shards and manifests as strangers leave them."""

import io
import json
import shutil
from pathlib import Path

import fsspec
import pytest
from datasets import TINY_MODEL, call, pictures_source, refusal, training_arguments
from evaluating import write_evaluation
from PIL import Image
from tars import write_tar
from train_processes import train_in_processes

from coca_video.checkpoint import load_checkpoint, saved_checkpoints
from coca_video.commands import pack
from coca_video.commands.train import main
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.run_log import read_evaluations, read_log

GOOD = 16  # pictures
# What is wrong with each damaged sample of the shards, by its key, and the kind that it is listed as.
KINDS = {"bomb": "picture", "cut": "video", "empty": "text", "mute": "text", "nothing": "record"}


def png(size: int = 24, mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new(mode, (size, size)).save(content, "png")
    return content.getvalue()


def shards_source(path: Path | str, **settings: object) -> str:
    settings = {"kind": "shards", "path": f"'{path}'", "batch_size": 8} | settings
    return "{" + ", ".join(f"{name}: {value}" for name, value in settings.items()) + "}"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, emoji_root) -> Path:
    """Two shards: good pictures among damaged samples, and one that is cut short behind a good picture."""
    folder = tmp_path_factory.mktemp("damaged")
    video = (emoji_root / "clips" / "pack3" / "3f5.mp4").read_bytes()
    members = {f"good{i}.{suffix}": data for i in range(GOOD - 1) for suffix, data in pair(i).items()}
    members |= {"bomb.png": png(10_000, "1"), "bomb.txt": b"a bomb"}
    members |= {"cut.mp4": video[: len(video) // 2], "cut.txt": b"half of a video"}
    members |= {"empty.png": png(), "empty.txt": b" \n", "mute.png": png(), "nothing.txt": b"no picture"}
    write_tar(folder / "a.tar", members)
    content = write_tar(
        folder / "b.tar", {f"late{i}.{s}": d for i in range(2) for s, d in pair(i).items()}
    ).read_bytes()
    (folder / "b.tar").write_bytes(content[: content.rindex(b"late1.png") + 520])
    return folder


def pair(i: int) -> dict[str, bytes]:
    return {"png": png(), "txt": f"picture {i}".encode()}


def epoch(output: Path, *sources: str, max_bad_share: float = 0.5) -> list[str]:
    settings = [f"data.max_bad_share={max_bad_share}", "loop.num_epochs=1", "loop.save_every=1"]
    return [*training_arguments(output, *sources), *settings]


def listed(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "bad_samples.jsonl").read_text().splitlines()]


def by_key(output: Path) -> list[dict]:
    return sorted(listed(output), key=lambda line: line["key"])


@pytest.fixture(scope="module")
def damaged_run(damaged, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "damaged"
    assert call(main, *epoch(output, shards_source(damaged))) == 0
    return output


def test_what_cannot_be_read_is_listed_with_its_reason(damaged_run, damaged):
    lines = listed(damaged_run)
    assert all(list(line) == ["step", "source", "key", "kind", "reason"] for line in lines)
    assert {line["source"] for line in lines} == {str(damaged)}
    shard, *samples = lines
    assert (shard["step"], shard["key"], shard["kind"]) == (0, str(damaged / "b.tar"), "shard")
    assert shard["reason"].startswith("cut short after 1 samples")
    found = {line["key"].removeprefix(f"{damaged / 'a.tar'}: sample "): line["kind"] for line in samples}
    assert found == KINDS and len(samples) == len(KINDS)
    assert all(line["reason"].startswith(line["key"]) for line in samples)
    num_steps = -(-(GOOD + len(KINDS)) // 8)
    assert [line["step"] for line in read_log(damaged_run)] == list(range(num_steps))
    assert [line["step"] for line in samples] == sorted(line["step"] for line in samples)


def test_a_run_that_goes_on_lists_nothing_twice(damaged_run, damaged, tmp_path, capsys):
    output = Path(shutil.copytree(damaged_run, tmp_path / "copy"))
    shutil.rmtree(saved_checkpoints(output)[-1])
    assert call(main, *epoch(output, shards_source(damaged))) == 0
    assert listed(output) == listed(damaged_run)
    said = capsys.readouterr().err
    assert "21 samples in 2 shards" in said
    assert f"\n3 steps of 8 samples: 21 (100%, 1.00 epochs) of {damaged}\n" in said
    where = output / "bad_samples.jsonl"
    assert f"\ndamaged shards: 1, listed in {where}; the first: {damaged / 'b.tar'}: cut short" in said
    kinds = "1 picture, 1 record, 2 text, 1 video"
    assert f"{where}: lists 5 samples that could not be read ({kinds})\n" in said


def test_too_many_end_the_run_with_one_line(damaged, tmp_path, capsys):
    output = tmp_path / "run"
    found = refusal(main, *epoch(output, shards_source(damaged), max_bad_share=0.05), capsys=capsys)
    num_bad = len(listed(output)) - 1
    assert found.startswith(f"{output / 'bad_samples.jsonl'}: {num_bad} of ") and num_bad > 1
    assert "; data.max_bad_share=0.05 allows 1 of 21; the last one: " in found


def test_in_two_processes(damaged_run, damaged, emoji_root, tmp_path):
    """One list, of all. What ends one process ends the other too."""
    source, whole, few, wrong = shards_source(damaged), *(tmp_path / name for name in ("all", "few", "wrong"))
    own = write_evaluation(tmp_path / "own.yaml", emoji_root / "clips" / "pack3.jsonl")
    evaluated = [f"evaluations=['{own}']", "loop.evaluate_every=3", "loop.save_every=3"]
    commands = [
        [*epoch(whole, source), *evaluated, "loop.best=own/retrieval/text_to_video/R@1"],
        [*epoch(wrong, source), *evaluated, "loop.best=own/retrieval/R@1"],
        epoch(few, source, max_bad_share=0.05),
        training_arguments(tmp_path / "small", shards_source(damaged, batch_size=1)),
    ]
    went, *ended = train_in_processes(tmp_path / "processes", *commands)
    assert [each["code"] for each in went] == [0, 0], went
    assert by_key(whole) == by_key(damaged_run) and len(read_log(whole)) == 3
    assert json.loads((whole / "best.json").read_text())["step"] == 3
    figures = sorted(name.removeprefix("eval/") for name in read_evaluations(whole)[0] if name != "step")
    assert all([each["code"] for each in processes] == [2, 2] for processes in ended), ended
    said = [{each["err"].splitlines()[-1].removeprefix("error: ") for each in every} for every in ended]
    assert all(len(of_all) == 1 for of_all in said)
    wrong_best, too_many, too_small = (of_all.pop() for of_all in said)
    assert wrong_best == f"loop.best=own/retrieval/R@1: no such figure; there are {', '.join(figures)}"
    assert "data.max_bad_share=0.05 allows 1 of 21" in too_many
    assert too_small.startswith("data.sources: a batch of 1 samples for 2 processes: each needs one; ")


def test_files_of_a_manifest(emoji_root, tmp_path):
    video = (emoji_root / "clips" / "pack3" / "3f5.mp4").read_bytes()
    contents = {"bomb.png": png(10_000, "1"), "cut.mp4": video[: len(video) // 2], "void.mp4": b""}
    contents |= {f"{i}.png": png() for i in range(5)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path / "x.jsonl", [ClipRecord(tmp_path / name, f"the {name}") for name in contents])
    source = f"{{kind: clips, path: '{tmp_path / 'x.jsonl'}', batch_size: 4, num_frames: 2}}"
    assert call(main, *epoch(tmp_path / "run", source)) == 0
    kinds = {Path(line["key"]).name: line["kind"] for line in listed(tmp_path / "run")}
    assert kinds == {"bomb.png": "picture", "cut.mp4": "video", "void.mp4": "video"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory, emoji_root) -> Path:
    """Six videos in two shards, and the same two in fsspec's memory."""
    folder = tmp_path_factory.mktemp("packed")
    call(pack.main, emoji_root / "clips" / "pack3.jsonl", folder, "--max-per-shard", 3)
    for path in folder.glob("*.tar"):
        fsspec.filesystem("memory").pipe(f"/packed/{path.name}", path.read_bytes())
    return folder


def test_an_address_stays_as_it_was_given(packed, tmp_path):
    runs = {
        "memory://packed/shard-{000000..000001}.tar": tmp_path / "memory",
        f"{packed}/*.tar": tmp_path / "plain",
    }
    for path, output in runs.items():
        source = shards_source(path, batch_size=3, num_frames=2)
        assert call(main, *training_arguments(output, source), "loop.num_steps=1") == 0
        settings = json.loads((output / "settings.json").read_text())
        assert settings["data"]["sources"][0]["path"] == path
        assert load_checkpoint(output).trained_on == [path]
    losses = {read_log(output)[0]["loss"] for output in runs.values()}
    assert len(losses) == 1


def test_all_that_a_source_can_be_told(packed, emoji_root, tmp_path, capsys):
    """Labels in prompts, lengths, drawn samples, and sources in turn, over two short epochs."""
    label = {"prompts": "clip_kinetics", "label": "concept", "weight": 2}
    frames = {"num_frames": 4, "frames_per_second": 5, "bucket": "frames", "shuffle_shards": 1}
    sources = [shards_source(packed, **label, **frames, batch_size=4)]
    sources.append(pictures_source(emoji_root, batch_size=5).replace("}", ", resample: true, bucket: text}"))
    changes = ["data.mixing=alternating", "loop.num_epochs=2", "model.text.context_length=40"]
    assert call(main, *training_arguments(tmp_path / "run", *sources), *changes) == 0
    said = capsys.readouterr().err
    of_each = f"12 (43%, 2.00 epochs) of {packed}, 16 (57%, 2.00 epochs) of {emoji_root / 'pictures'}"
    assert f"7 steps of 4 or 5 samples: {of_each}\n" in said
    assert len(read_log(tmp_path / "run")) == 7


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("sources.0.path=null", "data.sources[0].path: must have a value, got null"),
        ("sources.0.prompts=clip_kinetix", "clip_kinetix: there is no such set of templates; did you mean"),
        ("sources.0.weight=2", "the sources' weights 2 need mixing=alternating, got mixing=together"),
        ("sources.0.batch_size=9", "{packed}: batch_size 9 exceeds its 6 samples; take a smaller one, "),
        ("sources.1.batch_size=9", "data.sources[1]: is not there"),
        ("sources=[3]", "data.sources[0]: expected settings, as in {key: value}, got 3"),
        ("sources=[{kind: clips, path: 's3://x/y.jsonl'}]", "s3://x/y.jsonl: a manifest must be a file here"),
    ],
)
def test_what_is_said_of_wrong_settings(packed, tmp_path, capsys, change, expected):
    arguments = training_arguments(tmp_path / "run", shards_source(packed, batch_size=3, num_frames=2))
    change, expected = (text.replace("{packed}", str(packed)) for text in (change, expected))
    assert refusal(main, *arguments, f"data.{change}", capsys=capsys).startswith(expected)
    assert not (tmp_path / "run").exists()


def test_no_tokens_are_kept_of_random_frames(packed, image_run, tmp_path, capsys):
    arguments = training_arguments(tmp_path / "run", shards_source(packed, batch_size=3, num_frames=2))
    lit = [f"init={image_run}", "loop.tuning.regime=lit", f"data.token_cache={tmp_path / 'cache'}"]
    found = refusal(main, *arguments, *lit, *TINY_MODEL, capsys=capsys)
    assert found == "data.token_cache: data.sources[0].sampling=segment_random is random; uniform is not"


def test_steps_that_are_skipped_are_listed_with_their_samples(emoji_root, tmp_path, capsys):
    arguments = training_arguments(tmp_path / "run", pictures_source(emoji_root))
    skip = ["loop.watch={on_trouble: skip, max_skipped: 2}", "loop.optimizer.lr=1e30"]
    found = refusal(main, *arguments, *skip, capsys=capsys)
    lines = [json.loads(line) for line in (tmp_path / "run" / "bad_steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["reason"], line["loss"]) for line in lines] == [
        (step, "not finite", "nan") for step in (1, 2, 3)
    ]
    assert all(len(line["keys"]) == 4 and "sample flat-" in line["keys"][0] for line in lines)
    assert found.startswith(f"{tmp_path / 'run'}: not finite at step 3: ")
    assert found.endswith("2 steps before it were skipped too")
