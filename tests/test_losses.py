import math

import pytest
import reference
import shared_losses
import torch
import torch.nn.functional as F
from memory import largest_tensor
from processes import in_processes
from tiny import noise

from coca_video.losses import caption_loss, contrastive_loss
from coca_video.ops.cross_entropy import CHUNK_BYTES
from coca_video.ops.pairwise import TILE_SIZE

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


@pytest.mark.parametrize("groups", [None, [0, 1, 0, 0, 1]])
def test_contrastive_loss_at_a_low_temperature(groups):
    given, always = (None, range(SIZE)) if groups is None else (torch.tensor(groups), groups)
    video, text, _ = embeddings()
    reference.assert_equal_with_gradients(
        lambda video, text: contrastive_loss(video, text, torch.tensor(100.0), groups=given),
        lambda video, text: reference.contrastive_loss(video, text, torch.tensor(100.0), always),
        video,
        text,
    )


def test_groups_are_hashes():
    large = torch.tensor([2**63 - 1, -(2**63), 2**63 - 1, 2**63 - 1, -(2**63)])
    small = torch.tensor([0, 1, 0, 0, 1])
    by_hash, by_number = (contrastive_loss(*embeddings(), groups=groups) for groups in (large, small))
    assert torch.equal(by_hash, by_number)


def test_contrastive_loss_of_low_precision_is_computed_in_float32():
    exact = [x.detach().bfloat16().float() for x in embeddings()]
    groups = torch.tensor([0, 1, 0, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrastive_loss(*(x.bfloat16() for x in exact), groups=groups)
    assert torch.equal(found, contrastive_loss(*exact, groups=groups))


@pytest.mark.parametrize("shared", [False, True])
def test_similarities_are_never_all_held(shared):
    size = TILE_SIZE + TILE_SIZE // 2
    video, text = noise(size, 1), noise(size, 1, seed=1)
    groups = torch.arange(size) // 2 if shared else None
    largest = largest_tensor(
        lambda: contrastive_loss(video, text, torch.tensor(1.0), groups=groups).backward()
    )
    assert largest == TILE_SIZE**2


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_share_their_batches(num_processes, tmp_path):
    works = (shared_losses.contrastive_losses, shared_losses.no_pairs_at_all, shared_losses.caption_losses)
    in_processes(tmp_path, *works, num_processes=num_processes)


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 0, 0, 1])])
def test_alone_a_ring_changes_nothing(groups):
    results = []
    for ring in (False, True):
        loss = contrastive_loss(*(given := embeddings()), groups=groups, ring=ring)
        results.append([loss, *torch.autograd.grad(loss, given)])
    for held, ring in zip(*results):
        assert torch.equal(held, ring)


def packed(
    features: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """'b l d', 'b l', bool 'b l' -> features 'n d' and targets 'n': position i predicts token i + 1."""
    real = mask[:, 1:]
    return features[:, :-1][real], ids[:, 1:][real]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_caption_loss_equals_the_reference(label_smoothing):
    ids = torch.randint(1, 11, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [True] * 4 + [False] * 2])

    def loss(features: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
        features, targets = packed(features, ids, mask)
        return caption_loss(features, vocabulary, targets, label_smoothing=label_smoothing)

    reference.assert_equal_with_gradients(
        loss,
        lambda features, vocabulary: reference.caption_loss(
            features @ vocabulary.T, ids, mask, label_smoothing
        ),
        noise(3, 6, 5),
        noise(11, 5, seed=1),
    )


def test_padding_and_the_last_position_do_not_count():
    ids, logits = torch.tensor([[1, 4, 2, 0, 0]]), noise(1, 5, 7)
    mask = ids != 0

    def loss(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        features, targets = packed(logits, ids, mask)
        return caption_loss(features, torch.eye(7), targets)

    found = loss(logits, ids, mask)
    torch.testing.assert_close(found, loss(logits[:, :3], ids[:, :3], mask[:, :3]))
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient[0].abs().sum(dim=-1).gt(0).tolist() == [True, True, False, False, False]
    assert loss(logits, torch.where(mask, ids, 5), mask) == found


def test_caption_loss_predicts_the_targets():
    targets, others = torch.tensor([4, 2, 6]), torch.tensor([1, 4, 2])
    right, wrong = (100.0 * F.one_hot(tokens, 7) for tokens in (targets, others))
    assert caption_loss(right, torch.eye(7), targets).item() == pytest.approx(0, abs=1e-6)
    assert caption_loss(wrong, torch.eye(7), targets).item() == pytest.approx(100)


def test_caption_loss_without_a_token():
    with pytest.raises(ValueError, match=r"needs at least one row, got x of shape \(0, 7\)"):
        caption_loss(torch.zeros(0, 7), torch.eye(7), torch.zeros(0, dtype=torch.long))


@pytest.mark.parametrize("divisor", [10.0, torch.tensor(10.0), torch.tensor(10.0, dtype=torch.float64)])
def test_caption_loss_of_a_part_of_a_batch(divisor):
    """Two parts of a batch of ten tokens, of which the second has none."""
    features, vocabulary, targets = noise(10, 5), noise(11, 5, seed=1), torch.arange(10)

    def in_parts(features: torch.Tensor, vocabulary: torch.Tensor) -> torch.Tensor:
        parts = [slice(0, 7), slice(7, 10), slice(10, 10)]
        losses = [caption_loss(features[at], vocabulary, targets[at], divisor=divisor) for at in parts]
        assert {loss.dtype for loss in losses} == {torch.float32}
        return sum(losses)

    reference.assert_equal_with_gradients(
        in_parts,
        lambda features, vocabulary: caption_loss(features, vocabulary, targets),
        features,
        vocabulary,
    )


def test_a_part_without_a_token_has_a_gradient():
    features, vocabulary = noise(0, 5), noise(11, 5)
    loss = caption_loss(features, vocabulary, torch.zeros(0, dtype=torch.long), divisor=3.0)
    of_features, of_vocabulary = torch.autograd.grad(loss, (features, vocabulary))
    assert loss == 0 and of_features.shape == (0, 5) and torch.equal(of_vocabulary, torch.zeros(11, 5))


def test_the_scores_of_the_vocabulary_are_never_all_held():
    num_tokens, vocab_size = 1100, 2**15
    features, vocabulary = noise(num_tokens, 1), noise(vocab_size, 1, seed=1)
    targets = torch.arange(num_tokens)
    largest = largest_tensor(lambda: caption_loss(features, vocabulary, targets).backward())
    assert largest == CHUNK_BYTES // 4 < num_tokens * vocab_size
