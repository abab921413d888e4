import pytest
from datasets import call, refusal
from video_sets import save_json, save_videos

from coca_video.commands.prepare import main
from coca_video.data.benchmarks.card import read_card
from coca_video.data.benchmarks.catalogue import SETS

NAMES = """
kinetics400 kinetics600 kinetics700 moments ucf101 hmdb51 ssv2
msrvtt_1ka msrvtt_1kb msrvtt_full msvd vatex activitynet didemo youcook2
imagenet imagenet_v2 imagenet_a imagenet_r imagenet_sketch objectnet
coco flickr30k coco_captions nocaps cc3m cc12m
vqa_v2 snli_ve nlvr2 msrvtt_qa msvd_qa
folder table
"""


def test_every_set_is_there():
    assert set(SETS) == set(NAMES.split())
    assert all(each.name == name and each.title and each.layout for name, each in SETS.items())


@pytest.fixture
def didemo(tmp_path):
    root = tmp_path / "didemo"
    save_videos(root / "videos", "one.mp4", "-two.mp4")
    entries = [
        {"video": name, "description": text, "annotation_id": i, "times": [[0, 0]]}
        for i, (name, text) in enumerate(
            [("one.mp4", "a cat"), ("-two.mp4", "a dog"), ("three.mp4", "a fox")]
        )
    ]
    save_json(root / "test_data.json", entries)
    return root


def test_what_is_found_and_missing(didemo, capsys):
    assert not call(main, "didemo", "--root", didemo)
    printed = capsys.readouterr().out
    manifest = didemo / "manifests" / "didemo-test.jsonl"
    assert f"didemo test: 2 found of 3 listed -> {manifest}" in printed
    assert "the annotation files list 3, the official number is 1,004" in printed
    assert "1 missing: three" in printed
    assert f"coca-video evaluate checkpoint=... evaluate=didemo evaluate.manifest={manifest}" in printed
    assert read_card(manifest).num_expected == 1004


def test_videos_elsewhere(didemo, tmp_path, capsys):
    (didemo / "videos").rename(tmp_path / "elsewhere")
    assert not call(
        main, "didemo", "--root", didemo, "--media", tmp_path / "elsewhere", "--output", tmp_path / "out"
    )
    assert (tmp_path / "out" / "didemo-test.jsonl").exists()


def test_bad_input(didemo, tmp_path, capsys):
    gone = tmp_path / "gone"
    found = refusal(main, "didemo", "--root", gone, capsys=capsys)
    assert found == f"{gone}: no such folder; didemo needs: {SETS['didemo'].layout}"
    found = refusal(main, "didemo", "--root", didemo, "--split", "tset", capsys=capsys)
    assert "tset" in found and "train, val, test" in found
    assert refusal(main, "table", "--root", didemo, "--column", "text", capsys=capsys).startswith(
        "--column text: "
    )
    assert not (didemo / "manifests").exists()
