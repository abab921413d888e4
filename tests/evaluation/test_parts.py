import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from heads import pair_set, statement_set

from coca_video.data.examples import Example, Examples, Resized
from coca_video.data.manifest import ClipRecord, read_manifest
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import ViewsConfig
from coca_video.errors import InputError
from coca_video.evaluation.parts import (
    LoadingConfig,
    Made,
    Maker,
    Rows,
    check_numbers,
    make_in_parts,
    parts_key,
)


@dataclass
class Brightness:
    """Of each picture; and what its record says."""

    seen: list[str] = field(default_factory=list)  # records, by name

    def __call__(self, examples: list[Example], records: list[ClipRecord]) -> Rows:
        self.seen += [record.name for record in records]
        means = torch.stack([example.views[0].float().mean() for example in examples])
        return Rows({"mean": means}, {"text": [record.text for record in records]})


def counted(examples: list[Example], records: list[ClipRecord]) -> Rows:
    return Rows({"mean": torch.tensor([len(example.views[0]) for example in examples])})


def make(manifest: Path, folder: Path, *, size: int = 4, **makers: Maker) -> Made:
    prepare = Resized(Preprocessing(), 16)
    examples = Examples(read_manifest(manifest), ViewsConfig(num_frames=1), prepare)
    loading = LoadingConfig(batch_size=size, num_workers=0)
    return make_in_parts(examples, makers, loading=loading, folder=folder)


@pytest.fixture
def manifest(tmp_path) -> Path:
    return statement_set(tmp_path / "data")


def test_rows_of_every_maker_in_the_order_of_records(manifest, tmp_path):
    made = make(manifest, tmp_path / "parts", light=Brightness(), count=counted)
    records = read_manifest(manifest)
    assert made.indices == list(range(6)) and made.failed == []
    assert made.rows["light"].texts == {"text": [record.text for record in records]}
    assert made.rows["count"].tensors["mean"].tolist() == [1] * 6 and made.rows["count"].texts == {}
    whole = make(manifest, tmp_path / "whole", size=6, light=Brightness())
    assert torch.equal(made.rows["light"].tensors["mean"], whole.rows["light"].tensors["mean"])
    assert len(set(made.rows["light"].tensors["mean"].tolist())) == 6


def test_what_lies_there_is_not_made_again(manifest, tmp_path):
    first = make(manifest, tmp_path / "parts", light=Brightness())
    again = Brightness()
    second = make(manifest, tmp_path / "parts", light=again)
    assert again.seen == []
    assert torch.equal(first.rows["light"].tensors["mean"], second.rows["light"].tensors["mean"])
    assert first.rows["light"].texts == second.rows["light"].texts


def test_parts_of_changed_files_are_made_again(manifest, tmp_path):
    first = make(manifest, tmp_path / "parts", light=Brightness())
    shutil.copyfile(manifest.with_name("0.png"), manifest.with_name("5.png"))
    again = Brightness()
    second = make(manifest, tmp_path / "parts", light=again)
    assert again.seen == ["s4", "s5"]
    means = second.rows["light"].tensors["mean"]
    assert means[5] == means[0] != first.rows["light"].tensors["mean"][5]


def test_the_second_picture_of_a_pair_counts(tmp_path):
    manifest = pair_set(tmp_path / "data")
    make(manifest, tmp_path / "parts", light=Brightness())
    shutil.copyfile(manifest.with_name("0.png"), manifest.with_name("6.png"))
    again = Brightness()
    make(manifest, tmp_path / "parts", light=again)
    assert again.seen == ["p4", "p5"]


def test_what_cannot_be_read_is_counted_and_left_out(manifest, tmp_path):
    """Of the last part nothing is left."""
    for number in (1, 4, 5):
        manifest.with_name(f"{number}.png").write_bytes(b"")
    made = make(manifest, tmp_path / "parts", light=Brightness(), count=counted)
    assert made.indices == [0, 2, 3]
    assert [each.index for each in made.failed] == [1, 4, 5]
    assert all(str(manifest.with_name(f"{each.index}.png")) in each.reason for each in made.failed)
    assert len(made.rows["light"].texts["text"]) == len(made.rows["count"].tensors["mean"]) == 3


def test_nothing_that_can_be_read(manifest, tmp_path):
    for path in manifest.parent.glob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"^not one of 6 examples could be read; the first: .*0.png"):
        make(manifest, tmp_path / "parts", light=Brightness())


def test_what_is_no_number(manifest):
    records = read_manifest(manifest)[:3]
    check_numbers({"video": torch.ones(3)}, records, what="embeddings")
    with pytest.raises(InputError) as caught:
        check_numbers({"video": torch.tensor([1, float("nan"), 1])}, records, what="embeddings")
    first, last = (manifest.with_name(name) for name in ("0.png", "2.png"))
    assert str(caught.value) == f"{first} to {last}: the model's embeddings are not all numbers (video)"


def test_another_setting_is_another_folder():
    settings = {"views": {"num_frames": 8}, "model": "a"}
    assert parts_key(settings) == parts_key(dict(reversed(settings.items())))
    assert parts_key(settings) != parts_key(settings | {"model": "b"})
