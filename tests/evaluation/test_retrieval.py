import pytest
import torch
import torch.nn.functional as F

from coca_video.checkpoint import load_checkpoint
from coca_video.data.manifest import ClipRecord
from coca_video.evaluation.features import Features
from coca_video.evaluation.retrieval import RetrievalConfig, Texts, clip_texts, retrieve
from coca_video.evaluation.selection import Evaluated
from coca_video.evaluation.subject import READINGS, CocaSubject
from coca_video.metrics.ranking import retrieval_summary

CPU = torch.device("cpu")
TEXTS = [["a fox", "fox, running"], ["a star"], ["pizza", "a slice", "cheese"], ["ghost", "boo"]]


@pytest.fixture(scope="module")
def subject(image_run) -> CocaSubject:
    return CocaSubject(load_checkpoint(image_run), CPU)


def evaluated(*, views: int = 1) -> Evaluated:
    records = [
        ClipRecord(None, texts[0], {"tone": "dark" if i == 1 else ""}, id=str(i), more_texts=texts[1:])
        for i, texts in enumerate(TEXTS)
    ]
    rows = torch.randn(4, views, 12, generator=torch.Generator().manual_seed(1))
    embeddings = {reading: F.normalize(rows, dim=-1) for reading in READINGS}
    return Evaluated(records, None, Features([0, 1, 2, 3], embeddings, {}, []))


def naive_ranks(similarity: list[list[float]], groups: list[int], candidates: list[int]) -> torch.Tensor:
    """By the definition: others that score at least as high as the best right one."""
    found = []
    for row, group in zip(similarity, groups):
        best = max(score for score, other in zip(row, candidates) if other == group)
        found.append(sum(score >= best for score, other in zip(row, candidates) if other != group))
    return torch.tensor(found)


@pytest.mark.parametrize("texts", list(Texts))
def test_figures_by_the_definition(subject, texts):
    data = evaluated()
    config = RetrievalConfig(texts=texts, max_texts=2)
    used = [clip_texts(record, config) for record in data.records]
    groups = [i for i, each in enumerate(used) for _ in each]
    similarity = data.features.embeddings["video"][:, 0] @ subject.encode_texts(sum(used, [])).T
    figures, listed = retrieve(subject, data, config, lead="video")
    to_text = naive_ranks(similarity.tolist(), range(4), groups)
    to_video = naive_ranks(similarity.T.tolist(), groups, range(4))
    assert figures["figures"]["video"]["video_to_text"] == retrieval_summary(to_text)
    assert figures["figures"]["video"]["text_to_video"] == retrieval_summary(to_video)
    assert [listed[i]["rank"] for i in range(4)] == (to_text + 1).tolist()
    assert figures["num_texts"] == len(groups) == {"first": 4, "all": 7, "joined": 4}[texts.value]


def test_texts_of_a_clip():
    record = evaluated().records[2]
    assert clip_texts(record, RetrievalConfig(texts=Texts.first)) == ["pizza"]
    assert clip_texts(record, RetrievalConfig(texts=Texts.all)) == ["pizza", "a slice", "cheese"]
    assert clip_texts(record, RetrievalConfig(texts=Texts.all, max_texts=2)) == ["pizza", "a slice"]
    assert clip_texts(record, RetrievalConfig(texts=Texts.joined)) == ["pizza a slice cheese"]


def test_dual_softmax_stands_apart(subject):
    data = evaluated()
    figures, _ = retrieve(subject, data, RetrievalConfig(), lead="mean_of_frames")
    plain, _ = retrieve(subject, data, RetrievalConfig(dual_softmax=False), lead="mean_of_frames")
    assert figures["figures"] == plain["figures"] and "dual_softmax" not in plain
    assert set(figures["dual_softmax"]) == {"mean_of_frames"}
    similarity = data.features.embeddings["video"][:, 0] @ subject.encode_texts([t[0] for t in TEXTS]).T
    scores = similarity * (subject.scale * similarity).softmax(dim=0)
    expected = retrieval_summary(naive_ranks(scores.tolist(), range(4), range(4)))
    assert figures["dual_softmax"]["mean_of_frames"]["video_to_text"] == expected
    assert figures["dual_softmax_scale"] == subject.scale


def test_a_subset_has_its_own_candidates(subject):
    figures, listed = retrieve(subject, evaluated(), RetrievalConfig(subset="tone="), lead="video")
    assert figures["num_evaluated"] == 3 and sorted(listed) == [0, 2, 3]
    assert "a star" not in [text for text, _ in listed[0]["nearest_texts"]]


def test_views_are_averaged(subject):
    data = evaluated(views=3)
    _, listed = retrieve(subject, data, RetrievalConfig(), lead="video")
    mean = F.normalize(data.features.embeddings["video"].mean(dim=1), dim=-1)
    similarity = mean @ subject.encode_texts([texts[0] for texts in TEXTS]).T
    text, value = listed[2]["nearest_texts"][0]
    assert value == pytest.approx(similarity[2].max().item(), abs=1e-6)


class Rounding(CocaSubject):
    """Equal texts differ in the last bits with their place in a batch, as in large products they do."""

    def encode_texts(self, texts):
        rows = super().encode_texts(texts)
        return rows * (1 - 1e-6 * torch.arange(len(rows)).unsqueeze(1))


def test_equal_texts_of_two_clips_tie(image_run):
    """Neither clip has the text to itself."""
    rounding = Rounding(load_checkpoint(image_run), CPU)
    data = evaluated()
    data.records[3].text = data.records[0].text
    data.features.embeddings = {
        reading: rounding.encode_texts([record.text for record in data.records])[:, None]
        for reading in READINGS
    }
    _, listed = retrieve(rounding, data, RetrievalConfig(), lead="video")
    assert [listed[i]["rank"] for i in (0, 3)] == [2, 2]
