"""What processes do to test losses of a shared batch: here, where a spawned process can import it."""

import torch
import torch.nn.functional as F
from memory import largest_tensor
from processes import assert_means_equal, assert_own_rows_equal, own_leaf, splits
from tiny import noise

from coca_video.losses import caption_loss, contrastive_loss
from coca_video.ops.distributed import num_processes, own_rows
from coca_video.ops.ring import ring_logsumexp

NUM_PAIRS = 8
GROUPS = torch.tensor([5, 1, 5, 2, 2**62, 5, 1, 2**62])  # of pairs in different processes


def pairs(scale: float) -> list[torch.Tensor]:
    rows = [F.normalize(noise(NUM_PAIRS, 7, seed=i).detach(), dim=-1).requires_grad_() for i in range(2)]
    return [*rows, torch.tensor(scale, requires_grad=True)]


def contrastive_losses(rank: int) -> None:
    """The mean of the processes' losses, and of their gradients, are those of the whole batch."""
    for groups in (None, GROUPS):
        for scale in (1 / 0.07, 100.0):
            whole = pairs(scale)
            expected = plain_contrastive_loss(*whole, groups)
            gradients = torch.autograd.grad(expected, whole)
            for counts in splits(NUM_PAIRS):
                for ring in (False, True):
                    _assert_equal_shares(whole, groups, counts, ring, expected, gradients)


def _assert_equal_shares(
    whole: list[torch.Tensor],
    groups: torch.Tensor | None,
    counts: list[int],
    ring: bool,
    expected: torch.Tensor,
    gradients: tuple[torch.Tensor, ...],
) -> None:
    own = [*(own_leaf(x, counts) for x in whole[:2]), whole[2]]
    own_groups = None if groups is None else own_rows(groups, counts)
    loss = contrastive_loss(*own, groups=own_groups, ring=ring)
    of_video, of_text, of_scale = torch.autograd.grad(loss, own)
    assert_means_equal(loss, expected)
    assert_means_equal(of_scale, gradients[2])
    assert_own_rows_equal(of_video, gradients[0], counts)
    assert_own_rows_equal(of_text, gradients[1], counts)


def plain_contrastive_loss(
    video: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, groups: torch.Tensor | None
) -> torch.Tensor:
    """By a matrix of targets, as UniCL has it."""
    groups = torch.arange(len(video)) if groups is None else groups
    same = (groups[:, None] == groups).float()
    scores, targets = scale * video @ text.T, same / same.sum(dim=1)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2


def no_pairs_at_all(rank: int) -> None:
    for ring in (False, True):
        own = [torch.zeros(0, 7, requires_grad=True) for _ in range(2)]
        loss = contrastive_loss(*own, torch.tensor(1.0), groups=torch.zeros(0, dtype=torch.long), ring=ring)
        loss.backward()
        assert loss.item() == 0


def ring_in_tiles(rank: int) -> None:
    """Tiles smaller than the blocks, and each of the three results with its own gradient."""
    for tile_size in (1, 2, 3, 100):
        for counts in splits(NUM_PAIRS):
            q, k, scale = pairs(100.0)
            scores = scale * q @ k.T
            same = (GROUPS[:, None] == GROUPS).float()
            expected = [scores.logsumexp(1), scores.logsumexp(0), (scores * same).sum(1) / same.sum(1)]
            weights = [noise(NUM_PAIRS, seed=9 + i).detach() for i in range(3)]
            total = sum((result * weight).sum() for result, weight in zip(expected, weights))
            gradients = torch.autograd.grad(total, (q, k, scale))

            own = [own_leaf(q, counts), own_leaf(k, counts), scale]
            groups = own_rows(GROUPS, counts)
            found = ring_logsumexp(*own, counts, groups=groups, tile_size=tile_size)
            for ours, theirs in zip(found, expected):
                torch.testing.assert_close(ours.float(), own_rows(theirs, counts), atol=1e-4, rtol=0)
            total = sum((x * own_rows(weight, counts)).sum() for x, weight in zip(found, weights))
            of_q, of_k, of_scale = torch.autograd.grad(num_processes() * total, own)
            assert_means_equal(of_scale, gradients[2])
            assert_own_rows_equal(of_q, gradients[0], counts)
            assert_own_rows_equal(of_k, gradients[1], counts)


def a_ring_holds_a_block(rank: int) -> None:
    """No tensor is larger than the embeddings of one process; gathering makes one of all."""
    num_rows, width = 12, 16
    video, text = noise(num_rows, width, seed=rank), noise(num_rows, width, seed=8 + rank)
    groups = torch.arange(num_rows) // 2

    def call(ring: bool) -> None:
        contrastive_loss(video, text, torch.tensor(1.0), groups=groups, ring=ring).backward()

    assert largest_tensor(lambda: call(True)) == num_rows * width
    assert largest_tensor(lambda: call(False)) == num_processes() * num_rows * width


def caption_losses(rank: int) -> None:
    features, vocabulary = noise(8, 5), noise(11, 5, seed=1)
    targets = torch.randint(11, (8,), generator=torch.Generator().manual_seed(0))
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(features @ vocabulary.T, targets, label_smoothing=smoothing)
        gradients = torch.autograd.grad(expected, (features, vocabulary))
        for counts in splits(8):
            own = own_leaf(features, counts)
            loss = caption_loss(own, vocabulary, own_rows(targets, counts), label_smoothing=smoothing)
            of_features, of_vocabulary = torch.autograd.grad(loss, (own, vocabulary))
            assert_means_equal(loss, expected)
            assert_means_equal(of_vocabulary, gradients[1])
            assert_own_rows_equal(of_features, gradients[0], counts)
