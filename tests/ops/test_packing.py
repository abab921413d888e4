import pytest
import reference
import torch
from tiny import noise

from coca_video.ops.attention import Backend
from coca_video.ops.packing import Packing, attend_packed, until_last

LENGTHS = (4, 0, 1, 6)
MASK = torch.arange(8) < torch.tensor(LENGTHS).unsqueeze(1)  # two columns that no row reaches


def test_packing_and_back():
    packing, x = Packing(MASK), noise(4, 8, 3)
    packed = packing.pack(x)
    assert torch.equal(packed, x[MASK]) and packing.lengths == list(LENGTHS)
    padded = packing.unpack(packed)
    assert padded.shape == (4, 6, 3)
    assert torch.equal(padded, (x * MASK.unsqueeze(-1))[:, :6])


def test_gradients_come_back_to_their_rows():
    packing = Packing(MASK)
    reference.assert_equal_with_gradients(
        lambda x: packing.unpack(packing.pack(x) ** 2),
        lambda x: (x * MASK.unsqueeze(-1))[:, :6] ** 2,
        noise(4, 8, 3),
    )


def test_nothing_real_is_nothing():
    packing = Packing(torch.zeros(2, 3, dtype=torch.bool))
    assert packing.pack(noise(2, 3, 5)).shape == (0, 5)
    assert packing.unpack(torch.empty(0, 5)).shape == (2, 0, 5)


def test_rows_of_the_meta_device_are_all_real():
    packing = Packing(torch.ones(2, 3, dtype=torch.bool, device="meta"))
    assert packing.pack(torch.empty(2, 3, 5, device="meta")).shape == (6, 5)


def test_until_last_fills_holes():
    mask = torch.tensor([[True, False, True, False], [False] * 4, [False, False, False, True]])
    assert until_last(mask).sum(dim=1).tolist() == [3, 0, 4]
    assert until_last(mask)[0].tolist() == [True, True, True, False]


@pytest.mark.parametrize("backend", [Backend.auto, Backend.sdpa, Backend.naive])
@pytest.mark.parametrize("hides_keys", [False, True])
def test_each_sequence_attends_to_itself_alone(backend, hides_keys):
    """As the reference does for each one by itself, values and gradients."""
    packing = Packing(MASK)
    keys = torch.rand(4, 8, generator=torch.Generator().manual_seed(1)) < 0.6 if hides_keys else None
    shown = torch.ones_like(MASK) if keys is None else keys

    def one_by_one(q, k, v):
        rows = []
        for row, (one_q, one_k, one_v) in enumerate(zip(*(x.split(LENGTHS) for x in (q, k, v)))):
            n = len(one_q)
            visible = torch.ones(1, n, n, dtype=torch.bool).tril() & shown[row, :n]
            if n:
                rows.append(reference.attend(one_q[None], one_k[None], one_v[None], visible)[0])
        return torch.cat(rows)

    reference.assert_equal_with_gradients(
        lambda q, k, v: attend_packed(q, k, v, packing, mask=keys, backend=backend),
        one_by_one,
        *(noise(sum(LENGTHS), 3, 4, seed=i) for i in range(3)),
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_xformers_equals_sdpa():
    packing = Packing(MASK.cuda())
    inputs = [noise(sum(LENGTHS), 3, 16, seed=i).detach().cuda().requires_grad_() for i in range(3)]
    reference.assert_equal_with_gradients(
        lambda q, k, v: attend_packed(q, k, v, packing, backend=Backend.xformers),
        lambda q, k, v: attend_packed(q, k, v, packing, backend=Backend.sdpa),
        *inputs,
        atol=1e-3,
    )
