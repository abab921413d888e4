import json
import re
from pathlib import Path

import pytest
from datasets import call, refusal
from PIL import Image
from videos import coloured_frames, save_sound, save_video

from coca_video.commands.caption import main

TIME = r"\d\d:\d\d:\d\d"


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Four seconds of 40 frames, under a name that is awkward for a shell and for key=value."""
    path = tmp_path_factory.mktemp("my videos") / "a b=c, d.mp4"
    return save_video(path, coloured_frames(40, height=64), fps=10)


@pytest.fixture
def caption(image_run, capsys):
    """What the command prints."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert not call(main, *arguments, "--checkpoint", image_run, "--device", "cpu")
        return capsys.readouterr().out

    return run


@pytest.fixture
def refuse(image_run, capsys):
    return lambda *arguments: refusal(main, *arguments, "--checkpoint", image_run, capsys=capsys)


def test_text(caption, video):
    first, *frames = caption(video, "--num-frames", 4).splitlines()
    assert first.startswith(f"{video}: ")
    assert [float(re.match(r" +(\d\.\d\d) s  ", line)[1]) for line in frames] == [0.4, 1.4, 2.4, 3.4]


def test_jsonl(caption, video):
    clip, *frames = map(json.loads, caption(video, "--format", "jsonl", "--num-frames", 4).splitlines())
    assert (clip["video"], clip["start"], clip["end"]) == (str(video), 0, pytest.approx(4.0))
    assert [frame["time"] for frame in frames] == pytest.approx([0.4, 1.4, 2.4, 3.4])
    assert [(frame["start"], frame["end"]) for frame in frames] == [
        pytest.approx((i, i + 1)) for i in range(4)
    ]
    texts = [line["text"] for line in (clip, *frames)]
    assert all(isinstance(text, str) for text in texts)
    first, *others = caption(video, "--num-frames", 4).splitlines()
    assert [first.removeprefix(f"{video}: "), *(line.split(" s  ", 1)[1] for line in others)] == texts


def test_subtitles(caption, video):
    lines = caption(video, "--format", "jsonl", "--num-frames", 4).splitlines()
    texts = [json.loads(line)["text"].strip() for line in lines]
    srt = caption(video, "--format", "srt", "--num-frames", 4)
    webvtt = caption(video, "--format", "webvtt", "--num-frames", 4)
    assert webvtt.startswith("WEBVTT\n")
    spans = [("00:00:00", "00:00:04"), *((f"00:00:0{i}", f"00:00:0{i + 1}") for i in range(4))]
    expected = [span for span, text in zip(spans, texts) if text]  # a cue without text is left out
    assert re.findall(rf"({TIME}),000 --> ({TIME}),000\n", srt) == expected
    assert re.findall(rf"({TIME})\.000 --> ({TIME})\.000\n", webvtt) == expected


def test_a_file_for_each_video(caption, video, coloured_video, tmp_path):
    output = tmp_path / "new" / "folder"
    assert caption(video, coloured_video, "--format", "srt", "--output", output) == ""
    assert sorted(path.name for path in output.iterdir()) == ["a b=c, d.mp4.srt", "coloured.mp4.srt"]
    for path in (video, coloured_video):
        assert (output / f"{path.name}.srt").read_text() == caption(path, "--format", "srt")


def test_several_videos_one_after_the_other(caption, video, coloured_video):
    both = caption(video, coloured_video, "--format", "jsonl")
    assert both == caption(video, "--format", "jsonl") + caption(coloured_video, "--format", "jsonl")


@pytest.mark.parametrize(("num_frames", "expected"), [(1, 1), (3, 3)])
def test_a_short_video_shows_each_frame_once(caption, tmp_path, num_frames, expected):
    path = save_video(tmp_path / "short.mp4", coloured_frames(num_frames, height=64), fps=10)
    clip, *frames = map(json.loads, caption(path, "--format", "jsonl", "--num-frames", 50).splitlines())
    assert clip["end"] == pytest.approx(num_frames / 10)
    assert [frame["time"] for frame in frames] == pytest.approx([i / 10 for i in range(expected)])


def test_one_frame_says_what_the_clip_says(caption, video):
    clip, frame = map(json.loads, caption(video, "--format", "jsonl", "--num-frames", 1).splitlines())
    assert clip["text"] == frame["text"] and frame["time"] == pytest.approx(1.9)


def test_several_captions_with_a_prompt(caption, video):
    options = ["--num-captions", 3, "--num-beams", 4, "--prompt", "a fox", "--max-length", 12]
    lines = list(
        map(json.loads, caption(video, "--format", "jsonl", "--num-frames", 2, *options).splitlines())
    )
    assert len(lines) == 3
    for line in lines:
        captions = line["captions"]
        assert len(captions) == 3 and captions[0]["text"] == line["text"]
        assert all(each["text"].startswith("a fox") and len(each["ids"]) <= 12 for each in captions)
        assert all(each["log_prob"] == pytest.approx(sum(each["token_log_probs"])) for each in captions)
        similarities = [each["similarity"] for each in captions]
        assert similarities == sorted(similarities, reverse=True)
    text = caption(video, "--num-frames", 2, *options)
    assert text.count(" or  a fox") == 2 * 3


def test_samples_depend_on_the_seed(caption, video):
    options = ["--mode", "sample", "--temperature", 3, "--top-p", 0.9, "--num-captions", 2]
    first, again, other = (caption(video, *options, "--seed", seed) for seed in (0, 0, 1))
    assert first == again != other


def test_where_the_model_looked(caption, video, tmp_path):
    folder = tmp_path / "attention"
    caption(video, "--num-frames", 3, "--mode", "greedy", "--attention", folder)
    [picture] = folder.iterdir()
    assert picture.name == f"{video.name}.png"
    with Image.open(picture) as opened:
        assert opened.width > 3 * 16 and opened.height > 2 * 16


def test_merged_patches(caption, video):
    """One of the picture's four patches in each block; the captions begin at other features."""

    def similarities(*options: object) -> list[float]:
        lines = caption(video, "--num-frames", 2, "--format", "jsonl", *options).splitlines()
        return [json.loads(line)["captions"][0]["similarity"] for line in lines]

    merged, whole = similarities("--merged-per-block", 1), similarities()
    assert len(merged) == len(whole) == 3 and all(ours != theirs for ours, theirs in zip(merged, whole))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([99], "merged_per_block must be from 0 to half of a picture's 4 patches, got 99"),
        ([-1], "merged_per_block must be from 0 to half of a picture's 4 patches, got -1"),
        (
            [1, "--attention", "maps"],
            "--merged-per-block 1: --attention maps shows every patch in its place",
        ),
    ],
)
def test_patches_that_cannot_be_merged(refuse, video, options, expected):
    assert refuse(video, "--merged-per-block", *options) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--num-captions", 9], "beam decoding writes at most 8 captions a clip, got num_captions 9"),
        (["--num-beams", 0], "num_beams must be at least 1, got 0"),
        (["--top-p", 0], "temperature must be positive, top_p in (0, 1] and top_k not negative"),
    ],
)
def test_decoding_that_makes_no_sense(refuse, video, options, expected):
    assert refuse(video, *options).startswith(expected)


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut short", "sound", "folder"])
def test_a_bad_file_leaves_nothing_half_done(refuse, video, tmp_path, damage):
    path, output = tmp_path / f"{damage}.mp4", tmp_path / "output"
    match damage:
        case "empty":
            path.touch()
        case "text":
            path.write_text("this is no video\n" * 100)
        case "cut short":
            path.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
        case "sound":
            save_sound(path)
        case "folder":
            path.mkdir()
    found = refuse(video, path, "--output", output)
    assert found.startswith(f"{path}: ") and len(found) < 200
    assert not output.exists()


def test_no_checkpoint_anywhere(video, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = refusal(main, video, capsys=capsys)
    assert found.startswith("no checkpoint in runs/emoji/video or runs/emoji/image: run `make demo`")


def test_the_demo_s_run_is_the_default(image_run, caption, video, tmp_path, monkeypatch, capsys):
    expected = caption(video)
    (tmp_path / "runs" / "emoji").mkdir(parents=True)
    (tmp_path / "runs" / "emoji" / "image").symlink_to(image_run)
    monkeypatch.chdir(tmp_path)
    call(main, video, "--device", "cpu")
    assert capsys.readouterr().out == expected


def test_a_checkpoint_that_is_not_there(video, tmp_path, capsys):
    found = refusal(main, video, "--checkpoint", tmp_path / "none", capsys=capsys)
    assert found == f"{tmp_path / 'none'}: no such checkpoint"


@pytest.mark.parametrize("format", ["srt", "webvtt"])
def test_subtitles_of_two_videos_need_a_folder(refuse, video, coloured_video, format):
    found = refuse(video, coloured_video, "--format", format)
    assert found == f"--format {format}: holds one video, got 2; give --output FOLDER"


def test_videos_of_the_same_name_are_not_written_over_each_other(refuse, coloured_video, video, tmp_path):
    other = tmp_path / coloured_video.name
    other.write_bytes(video.read_bytes())
    found = refuse(coloured_video, other, "--output", tmp_path / "output")
    assert found == f"--output {tmp_path / 'output'}: two videos are named coloured.mp4"
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("number", [0, -3])
def test_at_least_one_frame(refuse, video, number):
    assert refuse(video, f"--num-frames={number}") == f"--num-frames {number}: at least 1 is needed"


def test_an_unknown_format(video, capsys):
    with pytest.raises(SystemExit) as end:
        call(main, video, "--format", "ass")
    assert end.value.code == 2 and "invalid choice: 'ass'" in capsys.readouterr().err
