"""The page is read back as a reader would: its words in order, its videos, its plotted lines."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from videos import coloured_frames, save_video

from coca_video.errors import InputError
from coca_video.evaluation.demo_page import write_demo_page

NUM_CLIPS = 30


class Page(HTMLParser):
    """All words outside style and script, and all start tags with their attributes."""

    def __init__(self, path: Path):
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1][0] not in ("style", "script"):
            self.words += data.split()

    def all(self, tag: str, **wanted: str) -> list[dict]:
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


def write_log(folder: Path, **figures: list[float]) -> Path:
    """A log as long as the figures given; what is not given is 1 throughout."""
    keys = ("loss", "caption", "contrastive", "scale", "gradient_norm", "lr", "samples_per_second")
    num_steps = len(next(iter(figures.values())))
    columns = {key: figures.get(key, [1.0] * num_steps) for key in keys}
    lines = [{"step": i, **{key: columns[key][i] for key in keys}} for i in range(num_steps)]
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def make_result(setting: str, *, start: float, num_evaluated: int = 222) -> dict:
    """Figures that all differ: they count up by 1 from `start`, in the order of the table's rows."""
    numbers = iter(start + i for i in range(100))
    actions = {name: [next(numbers) for _ in range(3)] for name in ("top1", "top5")}
    recalls = ("R@1", "R@5", "R@10", "median_rank")
    ways = {
        way: {name: [next(numbers) for _ in range(3)] for name in recalls}
        for way in ("video_to_text", "text_to_video")
    }
    views = ("video", "first_frame", "mean_of_frames")
    return {
        "benchmark": "emoji transfer",
        "model": {"checkpoint": f"runs/{setting}", "sha256": setting * 10, "trained_on": ["data/pictures"]},
        "protocol": {"num_frames": 8, "sampling": "uniform"},
        "tasks": {
            "classification": {
                **{"num_evaluated": 286, "num_expected": 286, "num_classes": 18},
                "templates": {"sets": ["person {}", "man {}"], "prompts": ["person {}", "man {}"]},
                "figures": {
                    view: {name: actions[name][i] for name in actions} for i, view in enumerate(views)
                },
            },
            "retrieval": {
                **{"num_evaluated": num_evaluated, "num_expected": 222},
                "figures": {
                    view: {way: {name: ways[way][name][i] for name in recalls} for way in ways}
                    for i, view in enumerate(views)
                },
            },
            "captioning": {
                **{"num_evaluated": num_evaluated, "num_expected": 222},
                "decoding": "greedy",
                "figures": {
                    "video": {"cider_d": 2.25, "exact_match": 31.5, "distinct_ratio": 0.75},
                    "first_frame": {"cider_d": 2.0, "exact_match": 29.5, "distinct_ratio": 0.5},
                },
            },
        },
    }


def make_prediction(path: Path, i: int) -> dict:
    """Clips 0 to 9 have rank 1, 10 to 19 rank 4; of 20 to 29, only in ACTIONS, the last 3 are right."""
    clip = {"path": str(path), "text": f"name {i}", "labels": {}}
    if i < 20:
        rank = 1 if i < 10 else 4
        nearest = [["another name", 0.5]] * (rank - 1) + [[f"name {i}", 0.5]]
        caption = f"Name {i}." if i % 2 else "a caption"
        return clip | {"rank": rank, "nearest_texts": nearest, "caption": caption}
    first, second = ("bowing", "biking") if i >= 27 else ("biking", "bowing")
    listed = [[first, 0.625], [second, 0.375]]
    return clip | {"labels": {"action": "bowing"}, "top_classes": listed, "caption": "a person"}


@pytest.fixture
def inputs(tmp_path: Path) -> dict:
    clips = []
    for i in range(NUM_CLIPS):
        frames = coloured_frames(i % 3 + 2, height=16, width=16)
        clips.append(save_video(tmp_path / f"{i}.mp4", frames, fps=10))
    return {
        "title": "From pictures to video",
        "runs": {"pictures": write_log(tmp_path / "pictures", loss=[4.0, 2.0, 1.0])},
        "results": {
            "benchmark": "emoji transfer",
            "settings": {
                "transfer": make_result("transfer", start=1.5),
                "video": make_result("video", start=51.5),
            },
        },
        "predictions": [make_prediction(path, i) for i, path in enumerate(clips)],
    }


def write(tmp_path: Path, inputs: dict) -> Page:
    write_demo_page(tmp_path / "report.html", **inputs)
    return Page(tmp_path / "report.html")


def test_results_stand_beside_the_reference(tmp_path, inputs):
    text = write(tmp_path, inputs).text
    assert "Actions 286 of 286 clips 286 of 286 clips" in text
    assert "top-1, % 1.5 2.5 3.5 51.5 52.5 53.5 53.8 5.6" in text
    assert "top-5, % 4.5 5.5 6.5 54.5 55.5 56.5 78.7 –" in text
    assert "clip → name, R@1, % 7.5 8.5 9.5 57.5 58.5 59.5 35.6 0.45" in text
    assert "clip → name, median rank 16.5 17.5 18.5 66.5 67.5 68.5 – –" in text
    assert "name → clip, R@5, % 22.5 23.5 24.5 72.5 73.5 74.5 65.3 –" in text
    assert "CIDEr-D, of 10 2.25 2.00 – 2.25 2.00 – – –" in text
    assert "exact match, % 31.5 29.5 – 31.5 29.5 – – –" in text
    assert "Actions top-1 51.5 % VIDEO 51.5 TRANSFER 1.5 reference 53.8 chance 5.6" in text
    assert "Captions CIDEr-D 2.25 of 10 VIDEO 2.25 TRANSFER 2.25" in text


def test_protocol_and_checkpoints_are_named(tmp_path, inputs):
    text = write(tmp_path, inputs).text
    assert "VIDEO, then clips of other packs: sha256 videovideovi…" in text
    assert f"sha256 {'video' * 10} trained on data/pictures" in text
    assert "num frames 8 sampling uniform templates person {}, man {}" in text


def test_only_a_partial_set_is_marked(tmp_path, inputs):
    assert "artial" not in write(tmp_path, inputs).text.partition("Protocol")[0]
    inputs["results"]["settings"]["video"] = make_result("video", start=51.5, num_evaluated=180)
    text = write(tmp_path, inputs).text
    assert "Partial results." in text
    assert "Actions 286 of 286 clips 286 of 286 clips" in text
    assert "Retrieval 222 of 222 clips 180 of 222 clips partial" in text
    assert "Retrieval clip → name, R@1 partial 57.5 %" in text


def test_one_setting_is_enough(tmp_path, inputs):
    del inputs["results"]["settings"]["video"]
    text = write(tmp_path, inputs).text
    assert "top-1, % 1.5 2.5 3.5 53.8 5.6" in text
    assert "Predictions of TRANSFER" in text


def test_page_asks_for_nothing(tmp_path, inputs):
    page = write(tmp_path, inputs)
    addresses = [found[key] for _, found in page.tags for key in ("src", "href", "srcset") if key in found]
    assert len(addresses) > 1
    assert all(address.startswith("data:") for address in addresses)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", source)
    [policy] = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy["content"]


def test_gallery_is_half_right_and_says_so(tmp_path, inputs):
    page = write(tmp_path, inputs)
    assert "10 of 20 clips are right at the first answer (50.0 %). Shown are 6 of the right ones" in page.text
    assert "3 of 10 clips are right at the first answer (30.0 %). Shown are 3 of the right ones" in page.text
    shown = [int(video["aria-label"].removeprefix("name ")) for video in page.all("video")]
    assert len(set(shown)) == len(shown) == 6 + 6 + 3 + 6
    assert all(i < 10 for i in shown[:6]) and all(10 <= i < 20 for i in shown[6:12])
    assert sorted(shown[12:15]) == [27, 28, 29] and all(20 <= i < 27 for i in shown[15:])
    assert page.text.count("✗ wrong: rank 4") == 6


def test_clips_are_inside_and_play_by_themselves(tmp_path, inputs):
    page = write(tmp_path, inputs)
    for video in page.all("video"):
        assert {"autoplay", "loop", "muted", "playsinline"} <= video.keys()
        kind, _, content = video["src"].partition(",")
        i = video["aria-label"].removeprefix("name ")
        assert kind == "data:video/mp4;base64"
        assert base64.b64decode(content) == (tmp_path / f"{i}.mp4").read_bytes()


def test_answers_and_captions_are_marked(tmp_path, inputs):
    inputs["predictions"] = [inputs["predictions"][i] for i in (1, 12, 20)]
    page = write(tmp_path, inputs)
    assert "name 1 ✓ right Caption ✓ “Name 1.” Nearest names, cosine name 1 0.50" in page.text
    assert "name 12 ✗ wrong: rank 4 Caption ✗ “a caption” Nearest names" in page.text
    assert "name 20 ✗ wrong Caption “a person” Actions, probability biking 62% bowing 38%" in page.text
    # one highlighted name for each clip, with its bar
    assert len(page.all("span", **{"class": "hit"})) == len(page.all("div", **{"class": "bar hit"})) == 3


def test_the_same_inputs_give_the_same_page(tmp_path, inputs):
    write(tmp_path, inputs)
    first = (tmp_path / "report.html").read_bytes()
    write(tmp_path, inputs)
    assert (tmp_path / "report.html").read_bytes() == first


def test_texts_are_escaped(tmp_path, inputs):
    evil = '<b>"bold" & more</b>'
    inputs["title"] = evil
    inputs["predictions"] = inputs["predictions"][:1]
    inputs["predictions"][0] |= {"text": evil, "caption": evil}
    inputs["runs"] = {evil: inputs["runs"]["pictures"]}
    page = write(tmp_path, inputs)
    assert page.all("b") == []
    assert page.all("video")[0]["aria-label"] == evil
    assert page.text.count(evil) >= 4


def points(polyline: dict) -> list[tuple[float, ...]]:
    return [tuple(map(float, point.split(","))) for point in polyline["points"].split()]


def test_curves_show_the_log(tmp_path, inputs):
    page = write(tmp_path, inputs)  # loss 4, 2, 1; the plot is 300 x 160 and ends at 1.05 x 4
    raw, smooth = page.all("polyline", **{"class": "raw"}), page.all("polyline", **{"class": "smooth"})
    assert len(raw) == len(smooth) == 6
    assert points(raw[0]) == [(0, 7.6), (150, 83.8), (300, 121.9)]
    assert points(smooth[0]) == points(raw[0])  # 4 % of three steps: each by itself
    assert "Total loss nats, weighted sum pictures 1 0 1 2 3 4 0" in page.text
    assert "pictures 3 steps, median 1 samples/s" in page.text


def test_smooth_line_is_the_running_mean(tmp_path, inputs):
    values = [3.0, 1.0] * 50  # windows of 2 x 2 + 1 steps, cut at the ends
    inputs["runs"] = {"zigzag": write_log(tmp_path / "zigzag", loss=values)}
    page = write(tmp_path, inputs)
    heights = [y for _, y in points(page.all("polyline", **{"class": "smooth"})[0])]
    means = [7 / 3, 8 / 4, 11 / 5, 9 / 5]
    assert heights[:4] == pytest.approx([160 * (1 - mean / (1.05 * 3)) for mean in means], abs=0.06)


def test_runs_share_the_axes(tmp_path, inputs):
    inputs["runs"]["video"] = write_log(tmp_path / "video", loss=[8.0] * 5)
    raw = write(tmp_path, inputs).all("polyline", **{"class": "raw"})
    assert points(raw[0]) == [(0, 83.8), (75, 121.9), (150, 141)]
    assert points(raw[1]) == [(x, 7.6) for x in (0, 75, 150, 225, 300)]


def test_a_diverged_run_still_has_a_page(tmp_path, inputs):
    nan = float("nan")
    inputs["runs"] = {"diverged": write_log(tmp_path / "diverged", loss=[4.0, 2.0, nan], caption=[nan] * 3)}
    page = write(tmp_path, inputs)
    loss, caption = page.all("polyline", **{"class": "raw"})[:2]
    assert points(loss) == [(0, 7.6), (150, 83.8)]
    assert points(caption) == []
    assert page.text.count("diverged not finite") == 2


def test_a_loss_that_was_not_trained_is_not_asked_for(tmp_path, inputs):
    folder = write_log(tmp_path / "captions", loss=[4.0, 2.0])
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        del line["contrastive"]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    inputs["runs"] = {"captions": folder}
    assert write(tmp_path, inputs).text.count("captions none") == 1


def test_missing_clip_is_named_and_nothing_written(tmp_path, inputs):
    for prediction in inputs["predictions"]:
        prediction["path"] = str(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4: cannot read this clip"):
        write(tmp_path, inputs)
    assert list(tmp_path.glob("report*")) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read this log"),
        ("", "the log is empty"),
        ("{oops}\n", "cannot read this log"),
        ('{"step": 0, "loss": 1.0}\n', "a line has no 'gradient_norm'"),
    ],
)
def test_unusable_log_is_named_and_nothing_written(tmp_path, inputs, content, message):
    folder = tmp_path / "broken"
    folder.mkdir()
    if content is not None:
        (folder / "log.jsonl").write_text(content)
    inputs["runs"]["broken"] = folder
    with pytest.raises(InputError, match=rf"broken/log\.jsonl: {message}"):
        write(tmp_path, inputs)
    assert list(tmp_path.glob("report*")) == []
