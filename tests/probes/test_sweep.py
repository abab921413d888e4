from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tiny import noise
from torch import nn

from coca_video.probes.heads import AttentionalHead, LinearHead
from coca_video.probes.sweep import STATE, Sweep, SweepConfig, batches_of, run_sweep, settings_of
from coca_video.probes.tokens import ReadingConfig, Vectors

CPU = torch.device("cpu")
READING = ReadingConfig()


def config(**changes) -> SweepConfig:
    own = {"lr": [0.01, 0.1], "weight_decay": [0.0, 0.5], "num_steps": 12, "batch_size": 4, "ema_decay": 0.5}
    return SweepConfig(**(own | {"num_warmup_steps": 3} | changes))


def vectors() -> Vectors:
    return Vectors(noise(10, 8).detach(), torch.arange(10) % 3)


def linear() -> nn.Module:
    return LinearHead(torch.zeros(8), torch.ones(8), num_classes=3)


def sweep(settings: SweepConfig, build=linear) -> Sweep:
    return Sweep(settings_of(settings, is_random=build is not linear), build, settings, CPU)


def run(settings: SweepConfig, folder, build=linear, **about) -> Sweep:
    made = sweep(settings, build)
    run_sweep(made, vectors(), reading=READING, folder=folder, about=about)
    return made


def attentional() -> nn.Module:
    return AttentionalHead(8, 2, num_classes=3)


def test_every_rate_with_every_decay():
    settings = settings_of(config(num_seeds=2), is_random=True)
    assert len(settings) == 8 and len({each.shared for each in settings}) == 4
    assert len(settings_of(config(num_seeds=2), is_random=False)) == 4


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_heads_side_by_side_are_heads_alone(tmp_path, optimizer):
    """Whatever the others do: one of them has a rate at which it goes wild."""
    together = run(config(lr=[0.01, 1e6], optimizer=optimizer), tmp_path)
    for i, each in enumerate(together.settings[:2]):
        own = config(lr=[each.lr], weight_decay=[each.weight_decay], optimizer=optimizer)
        alone = run(own, tmp_path)
        torch.testing.assert_close(alone.heads[0].state_dict(), together.heads[i].state_dict())


def test_a_step_is_that_of_a_plain_loop():
    settings = config(lr=[0.02], weight_decay=[0.3], num_warmup_steps=0, clip_norm=0.1, ema_decay=0.0)
    made, head, data = sweep(settings), linear(), vectors()
    plain = torch.optim.AdamW([{"params": [head.classes.weight], "weight_decay": 0.3}], lr=0.02)
    plain.add_param_group({"params": [head.classes.bias], "weight_decay": 0.0})
    for step, items in enumerate(list(batches_of(10, settings, first=0))[:3]):
        inputs = data.read(items)
        made.step(inputs)
        for group in plain.param_groups:
            group["lr"] = 0.02 * (0.5 + 0.5 * torch.cos(torch.tensor(step / 12 * torch.pi)).item())
        loss = F.cross_entropy(head(inputs), inputs.labels, label_smoothing=0.1)
        plain.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 0.1)
        plain.step()
    torch.testing.assert_close(made.heads[0].state_dict(), head.state_dict(), atol=1e-5, rtol=1e-4)


def test_a_sweep_learns(tmp_path):
    made = sweep(config(num_steps=100))
    losses = run_sweep(made, vectors(), reading=READING, folder=tmp_path, about={})
    assert len(losses) == 4 and losses[2] < 0.7 < torch.tensor(3.0).log()
    data = vectors()
    assert (made.heads[2](data.read(list(range(10)))).argmax(dim=1) == data.labels).all()


def test_seeds_begin_apart_and_are_the_same_every_time():
    first, second = sweep(config(num_seeds=2), attentional), sweep(config(num_seeds=2), attentional)
    queries = [head.classifier.pooler.queries for head in first.heads]
    assert not torch.equal(queries[0], queries[1]) and torch.equal(queries[0], queries[2])
    assert all(map(torch.equal, first.heads.state_dict().values(), second.heads.state_dict().values()))


def test_batches_are_epochs_in_an_order_of_their_own():
    settings = config(num_steps=6, batch_size=5)
    batches = list(batches_of(10, settings, first=0))
    epochs = [sum(batches[i : i + 2], []) for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]
    assert list(batches_of(10, settings, first=3)) == batches[3:]
    assert [len(batch) for batch in batches_of(3, config(num_steps=2, batch_size=8), first=0)] == [8, 8]


@dataclass
class Interrupted(Vectors):
    """Ctrl-C comes when so many batches have been read."""

    left: int = 7

    def read(self, items):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().read(items)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("build", [linear, attentional])
def test_an_interrupted_sweep_goes_on(tmp_path, optimizer, build):
    content = vectors().content
    if build is attentional:
        content = content.unsqueeze(1).repeat(1, 3, 1)

    def start(folder, *, num_batches):
        made = sweep(config(save_every=3, optimizer=optimizer, num_seeds=2), build)
        items = Interrupted(content, vectors().labels, num_batches)
        run_sweep(made, items, reading=READING, folder=folder, about={"a": 1})
        return made

    whole = start(tmp_path / "whole", num_batches=12)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, num_batches=7)
    assert (tmp_path / STATE).exists()
    resumed = start(tmp_path, num_batches=6)  # those from step 6 to the end
    for ours, theirs in zip(resumed.heads.state_dict().values(), whole.heads.state_dict().values()):
        assert torch.equal(ours, theirs)
    assert not (tmp_path / STATE).exists()


def test_a_state_of_other_settings_is_none(tmp_path):
    made = sweep(config(save_every=3))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(
            made,
            Interrupted(*vars(vectors()).values()),
            reading=READING,
            folder=tmp_path,
            about={"a": 1},
        )
    fresh, begun = run(config(), tmp_path / "fresh", a=2), run(config(), tmp_path, a=2)
    assert all(map(torch.equal, fresh.heads.state_dict().values(), begun.heads.state_dict().values()))
    (tmp_path / STATE).write_bytes(b"nothing")
    run(config(), tmp_path, a=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"lr": []}, "lr must be different numbers, none negative, got \\[\\]"),
        ({"lr": [0.0]}, "lr must be positive"),
        ({"weight_decay": [0.1, 0.1]}, "weight_decay must be different numbers"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"betas": [0.9]}, "betas must be two numbers"),
    ],
)
def test_refused_settings(changes, expected):
    with pytest.raises(ValueError, match=expected):
        SweepConfig(**changes)
