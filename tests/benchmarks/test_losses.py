from functools import partial

import pytest
import torch

from coca_video import losses
from coca_video.benchmarks import caption_loss, contrastive_loss
from coca_video.benchmarks.loss_functions import gradient_difference, prepare

CPU = torch.device("cpu")
CASES = {
    "caption": (
        losses.caption_loss,
        caption_loss.plain,
        partial(caption_loss.random_inputs, num_tokens=37, vocab_size=211, width=12),
    ),
    "contrastive": (
        losses.contrastive_loss,
        contrastive_loss.plain,
        partial(contrastive_loss.random_inputs, num_pairs=37, width=12),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_both_sides_have_the_same_loss_and_gradients(case):
    ours, plain, inputs = case
    expected = prepare(plain, inputs, CPU)()
    assert prepare(ours, inputs, CPU)() == pytest.approx(expected, rel=1e-5)
    assert gradient_difference(ours, plain, inputs, CPU) < 1e-5


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_another_gradient_is_seen(case):
    _, plain, inputs = case

    def twice(*tensors):
        return 2 * plain(*tensors)

    assert gradient_difference(twice, plain, inputs, CPU) == pytest.approx(1.0)
