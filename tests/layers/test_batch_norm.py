import pytest
import shared_batch_norm
import torch
from processes import in_processes
from torch import nn

from coca_video.layers.batch_norm import BatchNorm


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_share_their_statistics(num_processes, tmp_path):
    works = (
        shared_batch_norm.shared_rows,
        shared_batch_norm.a_large_mean,
        shared_batch_norm.fillers,
        shared_batch_norm.fillers_alone,
        shared_batch_norm.low_precision,
        shared_batch_norm.stems,
        shared_batch_norm.others_gradients,
    )
    in_processes(tmp_path, *works, num_processes=num_processes)


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_torchs(training):
    plain, ours, pictures = shared_batch_norm.batch_norms()
    assert isinstance(ours, nn.BatchNorm2d)
    results = []
    for norm in (plain, ours):
        out = norm.train(training)(pictures)
        results.append([out, *torch.autograd.grad((out**3).sum(), (pictures, norm.weight, norm.bias))])
    for theirs, our in zip(*results):
        assert torch.equal(theirs, our)
    for theirs, our in zip(plain.state_dict().values(), ours.state_dict().values(), strict=True):
        assert torch.equal(theirs, our)


def test_a_filler_alone_is_normalised_by_what_was_seen_before():
    shared_batch_norm.fillers_alone(0)


def test_weight_returns_after_an_error():
    norm = BatchNorm(3)
    with pytest.raises(ZeroDivisionError), shared_batch_norm.without_weight(nn.Sequential(norm)):
        assert not norm.has_weight
        raise ZeroDivisionError
    assert norm.has_weight
