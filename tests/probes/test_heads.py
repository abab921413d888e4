import pytest
import torch
import torch.nn.functional as F
from tiny import noise, shaken

from coca_video.errors import InputError
from coca_video.probes.heads import AttentionalHead, LinearHead, NeighbourHead, load_head, save_head
from coca_video.probes.tokens import Inputs

LABELS = torch.tensor([0, 2, 2, 1, 0, 2])


def bank() -> torch.Tensor:
    return F.normalize(noise(6, 8).detach(), dim=-1)


def heads() -> list[torch.nn.Module]:
    mean, deviation = torch.arange(8.0), torch.linspace(0.5, 2, 8)
    return [
        AttentionalHead(8, 2, num_classes=3),
        LinearHead(mean, deviation, num_classes=3),
        NeighbourHead(bank(), LABELS, num_classes=3, k=4, temperature=0.1),
    ]


def inputs_for(head: torch.nn.Module) -> Inputs:
    shape = (5, 7, 8) if isinstance(head, AttentionalHead) else (5, 8)
    return Inputs(noise(*shape, seed=1).detach(), torch.zeros(5, dtype=torch.long))


def test_learned_heads_begin_undecided():
    for head in heads()[:2]:
        assert torch.equal(head(inputs_for(head)), torch.zeros(5, 3))


def test_neighbours_vote_by_their_cosine():
    head = NeighbourHead(bank(), LABELS, num_classes=4, k=3, temperature=0.2)
    query = noise(2, 8, seed=3).detach() * 5
    found = head(Inputs(query, LABELS[:2])).exp()
    for row, vector in zip(found, query):
        cosines = [F.cosine_similarity(vector, each, dim=0).item() for each in bank()]
        nearest = sorted(range(6), key=lambda i: -cosines[i])[:3]
        votes = torch.zeros(4, dtype=torch.float64)
        for i in nearest:
            votes[LABELS[i]] += torch.tensor(cosines[i] / 0.2, dtype=torch.float64).exp()
        torch.testing.assert_close(row, votes / votes.sum(), atol=1e-6, rtol=1e-5)
    assert found[0, 3] < 1e-20


def test_more_neighbours_than_there_are():
    few, all_of_them = (NeighbourHead(bank(), LABELS, num_classes=3, k=k, temperature=0.1) for k in (6, 1000))
    assert torch.equal(few(inputs_for(few)), all_of_them(inputs_for(few)))


def test_masked_tokens_change_nothing():
    head = shaken(AttentionalHead(8, 2, num_classes=3))
    tokens = noise(2, 7, 8).detach()
    mask = torch.arange(7).expand(2, 7) < torch.tensor([[4], [7]])
    changed = torch.where(mask.unsqueeze(-1), tokens, 9.0)
    labels = torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(head(Inputs(tokens, labels, mask)), head(Inputs(changed, labels, mask)))


@pytest.mark.parametrize("number", range(3))
def test_a_head_is_used_again(tmp_path, number):
    head = shaken(heads()[number]).eval()
    save_head(tmp_path, head, {"classes": ["a", "b", "c"]})
    loaded = load_head(tmp_path)
    assert loaded.about["classes"] == ["a", "b", "c"]
    assert torch.equal(loaded.head(inputs_for(head)), head(inputs_for(head)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]


def test_no_head_and_a_damaged_one(tmp_path):
    with pytest.raises(InputError, match="head.json: not the description of a probe's head"):
        load_head(tmp_path)
    save_head(tmp_path, heads()[1], {})
    path = tmp_path / "head.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match="head.safetensors: cannot be read as a probe's head") as caught:
        load_head(tmp_path)
    assert "\n" not in str(caught.value)
