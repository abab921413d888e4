from dataclasses import replace

import pytest
import torch
from probing import write_coloured
from tiny import coca, temporal_config

from coca_video.data.benchmarks.card import Card, write_card
from coca_video.data.sources import Kind as SourceKind
from coca_video.data.token_cache import TokenCache
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import ViewsConfig
from coca_video.errors import InputError
from coca_video.models.adaptors import Adaptor
from coca_video.probes.examples import CopiesConfig, PartConfig
from coca_video.probes.heads import Kind
from coca_video.probes.judging import Candidates
from coca_video.probes.probe import ProbeConfig, Trial, choose, num_expected, run_probe
from coca_video.probes.sweep import SweepConfig
from coca_video.probes.tokens import Features, ReadingConfig

SWEEP = {"lr": [1e-6, 0.02], "weight_decay": [0.0], "num_steps": 30, "batch_size": 8, "ema_decay": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coloured(tmp_path_factory.mktemp("coloured"))


def config(root, **changes) -> ProbeConfig:
    own = {
        "train": [PartConfig(str(root / "pictures"), SourceKind.pictures)],
        "val": PartConfig(str(root / "val.jsonl")),
        "test": PartConfig(str(root / "test.jsonl"), views=ViewsConfig(num_frames=2, num_crops=2)),
        "label": "colour",
        "copies": CopiesConfig(1),
        "sweep": SweepConfig(**SWEEP),
        "reading": ReadingConfig(num_workers=0),
    }
    return ProbeConfig(**(own | changes))


def run(settings: ProbeConfig, folder, **model):
    made = coca(**model)
    before = {name: x.clone() for name, x in made.state_dict().items()}
    cache = TokenCache(folder / "cache", encoder="e")
    probed = run_probe(made, Preprocessing(), cache, settings, folder=folder)
    assert all(torch.equal(x, before[name]) for name, x in made.state_dict().items())
    return probed


@pytest.mark.parametrize("kind", list(Kind))
def test_colours_are_learned_from_pictures_and_known_in_videos(root, tmp_path, kind):
    """Even an encoder that has learned nothing keeps colours apart."""
    probed = run(config(root, kind=kind), tmp_path)
    assert probed.mean()["top1"] == 100.0 and probed.judged.scores.shape == (6, 3)
    about = probed.data.about()
    assert [(about[name]["num_examples"], about[name]["num_items"]) for name in about] == [
        (18, 36),
        (6, 6),
        (6, 12),
    ]
    if kind is not Kind.knn:
        assert probed.chosen[0].setting["lr"] == 0.02


@pytest.mark.parametrize("features", list(Features))
def test_either_features(root, tmp_path, features):
    probed = run(config(root, kind=Kind.linear, features=features), tmp_path)
    width = probed.chosen[0].head.classes.in_features
    assert width == {Features.embedding: 20, Features.tokens: 16}[features]


def test_without_a_validation_part_a_share_is_held_out(root, tmp_path):
    probed = run(config(root, val=None, val_share=0.3, kind=Kind.knn), tmp_path)
    about = probed.data.about()
    assert about["train"]["num_examples"] + about["val"]["num_examples"] == 18
    assert about["train"]["num_items"] == 2 * about["train"]["num_examples"]
    assert about["val"]["num_items"] == about["val"]["num_examples"]


def test_candidates(root, tmp_path):
    probed = run(config(root, kind=Kind.knn, candidates=Candidates.present), tmp_path)
    assert probed.judged.candidates == [1, 2] and probed.data.classes.ids == ["blue", "green", "red"]


def test_seeds(root, tmp_path):
    probed = run(config(root, sweep=SweepConfig(**SWEEP, num_seeds=2)), tmp_path)
    assert len(probed.trials) == 4 and [trial.seed for trial in probed.chosen] == [0, 1]
    assert len(probed.tested) == 2
    mean = sum(each["log_loss"] for each in probed.tested) / 2
    assert probed.mean()["log_loss"] == pytest.approx(mean)


def trial(lr: float, seed: int, top1: float | None, loss: float = 1.0) -> Trial:
    val = None if top1 is None else {"top1": top1, "log_loss": loss}
    return Trial({"lr": lr, "weight_decay": 0.0}, seed, torch.nn.Identity(), 0.0, val)


def test_the_choice():
    trials = [trial(1, 0, 90), trial(1, 1, 50), trial(2, 0, 80, 0.5), trial(2, 1, 80), trial(3, 0, 80, 0.4)]
    assert choose([*trials, trial(3, 1, 80, 0.9)])[0].setting["lr"] == 3
    assert choose([*trials, trial(3, 1, None)]) == trials[2:4]
    with pytest.raises(InputError, match="every head has diverged"):
        choose([trial(1, 0, None)])


def test_a_model_that_keeps_no_tokens(root, tmp_path):
    with pytest.raises(InputError, match="the joint adaptor encodes a clip's frames together"):
        run(config(root), tmp_path, temporal=temporal_config(Adaptor.joint))


def test_a_class_that_was_not_learned(root, tmp_path):
    train = PartConfig(str(root / "test.jsonl"), views=ViewsConfig(num_frames=2))
    test = PartConfig(str(root / "pictures"), SourceKind.pictures)
    with pytest.raises(InputError, match="pictures: .*blue-0 is 'blue', none of the 2 classes learned"):
        run(config(root, train=[train], val=train, test=test), tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": []}, "train must name at least one part, got none"),
        ({"val_share": 0.0}, "val_share must be above 0 and below 1, got 0.0"),
        ({"features": Features.tokens}, "features=tokens is for linear and knn"),
        ({"test": PartConfig("v.jsonl"), "val": PartConfig("v.jsonl")}, "none of train and val, got v.jsonl"),
        (
            {"test": PartConfig("v", SourceKind.shards), "templates": ["{}"]},
            "templates need a test of kind=clips",
        ),
    ],
)
def test_refused_settings(root, changes, expected):
    with pytest.raises(ValueError, match=expected):
        config(root, **changes)


def test_how_many_there_should_be(tmp_path):
    root = write_coloured(tmp_path)
    facts = {"num_expected": 9, "num_listed": 6, "num_found": 6, "missing": [], "annotations": {}}
    about = {"dataset": "d", "title": "D", "split": "s", "notes": [], "classes": [], "class_ids": []}
    write_card(root / "test.jsonl", Card(**about, **facts, subsets={"colour": 7}))
    part = run(config(root, kind=Kind.knn), tmp_path).data.test.parts[0]
    assert (num_expected(part, label="colour"), num_expected(part, label="class")) == (7, 9)
    part.config = replace(part.config, subset="colour=red")
    assert num_expected(part, label="colour") is None
