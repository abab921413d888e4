"""Optimizers and averages whose parameters are shared out: as in one process, and taken up across numbers."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
from optimizer_processes import (
    DECAY,
    NUM_STEPS,
    SAVED_AT,
    Model,
    build_own_optimizer,
    checkpoint,
    run,
    take_up,
    train_sharded,
    whole,
)

from coca_video.training.average import Average
from coca_video.training.optim import OptimizerName

NUM_PROCESSES = 2


def new(name):
    model = Model()
    return model, build_own_optimizer(name, model), Average(model, DECAY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With what processes that share the parameters have saved and come to."""
    folder = tmp_path_factory.mktemp("sharded")
    for name in OptimizerName:
        parts = new(name)
        run(*parts, first=0, last=SAVED_AT)
        dcp.save(checkpoint(*parts), checkpoint_id=folder / f"whole-{name.value}", no_dist=True)
    torch.multiprocessing.spawn(train_sharded, args=(NUM_PROCESSES, folder), nprocs=NUM_PROCESSES)
    return folder


@pytest.fixture(params=OptimizerName)
def name(request):
    return request.param


@pytest.fixture
def alone(name):
    """Weights and average of one process after all steps."""
    model, optimizer, average = new(name)
    run(model, optimizer, average, first=0, last=NUM_STEPS)
    return whole(model.state_dict()), whole(average.state_dict())


def assert_equal_but_for_roundings(found, expected):
    """Where sums in another order bring a first moment to the other side of a rounding to bfloat16, a step
    differs by that rounding: the rate x 2 ** -9. All else is equal to 1e-6.
    """
    for part, known in zip(found, expected):
        assert part.keys() == known.keys()
        far = [((part[n] - known[n]).abs() > 1e-6).float().mean() for n in known]
        assert max(far) < 1e-3
        torch.testing.assert_close(part, known, atol=5e-5, rtol=0)


@pytest.mark.parametrize("begins", ["new", "taken up"])
def test_shards_give_what_one_process_gives(folder, name, alone, begins):
    """The whole run, and the steps after a checkpoint of one process."""
    found = torch.load(folder / f"outcome-{name.value}.pt")[begins]
    assert_equal_but_for_roundings(found, alone)


def test_one_process_takes_up_what_shards_have_saved(folder, name, alone):
    model, optimizer, average = new(name)
    take_up(folder / f"sharded-{name.value}", model, optimizer, average)
    run(model, optimizer, average, first=SAVED_AT, last=NUM_STEPS)
    assert_equal_but_for_roundings((model.state_dict(), average.state_dict()), alone)


def test_one_process_resumes_to_the_last_bit(folder, name, alone):
    model, optimizer, average = new(name)
    take_up(folder / f"whole-{name.value}", model, optimizer, average)
    run(model, optimizer, average, first=SAVED_AT, last=NUM_STEPS)
    torch.testing.assert_close((model.state_dict(), average.state_dict()), alone, atol=0, rtol=0)
