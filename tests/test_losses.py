import math

import pytest
import reference
import torch
import torch.nn.functional as F
from tiny import noise

from coca_video.losses import caption_loss, contrastive_loss

SIZE = 5


def embeddings() -> tuple[torch.Tensor, ...]:
    video, text = (F.normalize(noise(SIZE, 6, seed=i).detach(), dim=-1).requires_grad_() for i in range(2))
    return video, text, torch.tensor(1 / 0.07, requires_grad=True)


@pytest.mark.parametrize("groups", [None, [0, 1, 2, 3, 4], [0, 1, 0, 0, 1], [7, 7, 7, 7, 7]])
def test_contrastive_loss_equals_the_reference(groups):
    given, always = (None, range(SIZE)) if groups is None else (torch.tensor(groups), groups)
    reference.assert_equal_with_gradients(
        lambda video, text, scale: contrastive_loss(video, text, scale, groups=given),
        lambda video, text, scale: reference.contrastive_loss(video, text, scale, always),
        *embeddings(),
    )


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 0, 0, 1])])
def test_contrastive_loss_is_symmetric(groups):
    video, text, scale = embeddings()
    forth, back = (contrastive_loss(x, y, scale, groups=groups) for x, y in ((video, text), (text, video)))
    torch.testing.assert_close(forth, back)


def test_groups_of_one_are_no_groups():
    with_groups = contrastive_loss(*embeddings(), groups=torch.tensor([4, 2, 9, 1, 3]))
    torch.testing.assert_close(with_groups, contrastive_loss(*embeddings()))


def test_contrastive_loss_of_known_cases():
    apart, scale = torch.eye(4), torch.tensor(50.0)
    assert contrastive_loss(apart, apart, scale).item() == pytest.approx(0, abs=1e-6)
    same = torch.ones(4, 1)
    assert contrastive_loss(same, same, scale).item() == pytest.approx(math.log(4))
    # Two equal pairs of two: told apart by group, each has two right answers of equal score.
    twice = torch.eye(2).repeat(2, 1)
    loss = contrastive_loss(twice, twice, scale, groups=torch.tensor([0, 1, 0, 1]))
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_caption_loss_equals_the_reference(label_smoothing):
    ids = torch.randint(1, 11, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [True] * 4 + [False] * 2])
    reference.assert_equal_with_gradients(
        lambda logits: caption_loss(logits, ids, mask, label_smoothing=label_smoothing),
        lambda logits: reference.caption_loss(logits, ids, mask, label_smoothing),
        noise(3, 6, 11),
    )


def test_padding_and_the_last_position_do_not_count():
    ids, logits = torch.tensor([[1, 4, 2, 0, 0]]), noise(1, 5, 7)
    mask = ids != 0
    loss = caption_loss(logits, ids, mask)
    torch.testing.assert_close(loss, caption_loss(logits[:, :3], ids[:, :3], mask[:, :3]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0].abs().sum(dim=-1).gt(0).tolist() == [True, True, False, False, False]
    assert caption_loss(logits, torch.where(mask, ids, 5), mask) == loss


def test_caption_loss_predicts_the_next_token():
    ids = torch.tensor([[1, 4, 2]])
    next_ids = torch.tensor([[4, 2, 6]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert caption_loss(100.0 * F.one_hot(next_ids, 7), ids, mask).item() == pytest.approx(0, abs=1e-6)
    assert caption_loss(100.0 * F.one_hot(ids, 7), ids, mask).item() == pytest.approx(100)
