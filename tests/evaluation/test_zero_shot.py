import pytest
import torch
import torch.nn.functional as F

from coca_video.checkpoint import load_checkpoint
from coca_video.data.benchmarks.card import Card
from coca_video.data.benchmarks.vocabulary import templates
from coca_video.data.manifest import ClipRecord
from coca_video.evaluation.features import Features
from coca_video.evaluation.parts import Failed
from coca_video.evaluation.selection import Evaluated
from coca_video.evaluation.subject import READINGS, CocaSubject
from coca_video.evaluation.zero_shot import (
    ClassificationConfig,
    Views,
    _scores,
    class_embeddings,
    classify,
    resolve_templates,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject(image_run) -> CocaSubject:
    return CocaSubject(load_checkpoint(image_run), CPU)


def test_a_class_is_the_mean_of_its_prompts(subject):
    found = class_embeddings(subject, ["running", "rowing boat", "juggling"], ["person {}", "man {} fast"])
    assert found.shape == (3, 12)
    for name, row in zip(("running", "rowing boat", "juggling"), found):
        prompts = subject.encode_texts([f"person {name}", f"man {name} fast"])
        torch.testing.assert_close(row, F.normalize(prompts.mean(dim=0), dim=0), atol=1e-5, rtol=1e-4)


def test_one_template_is_the_prompt_itself(subject):
    found = class_embeddings(subject, ["fox", "star"], ["{}"])
    torch.testing.assert_close(found, subject.encode_texts(["fox", "star"]))


def test_templates_by_name_and_as_they_are():
    assert resolve_templates(["a {} here", "plain"]) == ["a {} here", "{}"]
    assert resolve_templates(["clip_kinetics"]) == templates("clip_kinetics")
    assert len(resolve_templates(["clip_kinetics"])) == 28


NAMES = ["fox", "star", "rowing boat", "pizza"]


def evaluated(
    subject: CocaSubject, labels: list[str], *, views: int = 1, card: Card | None = None
) -> Evaluated:
    """A record a label, the last of them not readable; every reading's embeddings are random."""
    records = [ClipRecord(None, name, {"class": name}, id=str(i)) for i, name in enumerate(labels)]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(len(labels) - 1, views, 12, generator=generator)
    embeddings = {reading: F.normalize(rows, dim=-1) for reading in READINGS}
    failed = [Failed(len(labels) - 1, "error", "no such file")]
    return Evaluated(records, card, Features(list(range(len(labels) - 1)), embeddings, {}, failed))


def test_the_nearest_class_is_the_prediction(subject):
    data = evaluated(subject, ["fox", "star", "fox", "pizza", "star", "rowing boat"])
    found = classify(subject, data, ClassificationConfig(templates=["a {}"]), lead="video")
    texts = class_embeddings(subject, sorted(NAMES), ["a {}"])
    nearest = [sorted(NAMES)[i] for i in (data.features.embeddings["video"][:, 0] @ texts.T).argmax(dim=1)]
    assert [found.listed[i]["top_classes"][0][0] for i in range(5)] == nearest
    right = sum(name == record.text for name, record in zip(nearest, data.records))
    assert found.figures["figures"]["video"]["top1"] == pytest.approx(100 * right / 5)
    assert found.figures["num_classes"] == 4 and found.figures["num_failed"] == 1
    assert found.support == [2, 1, 0, 2] and found.confusion.sum() == 5


def test_the_card_s_classes_are_all_candidates(subject):
    """A copy with clips of two classes is not an easier task; names may repeat, ids do not."""
    ids = ["n1", "n2", "n3", "n4", "n5"]
    card = Card("x", "X", "val", 3, 3, 3, [], {}, [*NAMES, "fox"], ids, {}, [])
    data = evaluated(subject, ["n1", "n2", "n1"], card=card)
    found = classify(subject, data, ClassificationConfig(), lead="video")
    assert found.figures["num_classes"] == 5 and found.figures["num_expected"] == 3
    assert found.classes == [*NAMES, "fox"] and found.support == [1, 1, 0, 0, 0]


def test_views_are_added_or_averaged(subject):
    data = evaluated(subject, ["fox", "star", "pizza"], views=3)
    texts = class_embeddings(subject, ["fox", "pizza", "star"], ["{}"])
    rows = data.features.embeddings["video"]
    probabilities = (subject.scale * rows @ texts.T).double().softmax(dim=-1).mean(dim=1)
    found = classify(subject, data, ClassificationConfig(), lead="video")
    averaged = classify(subject, data, ClassificationConfig(views=Views.mean_embedding), lead="video")
    for i in range(2):
        assert dict(found.listed[i]["top_classes"])["fox"] == pytest.approx(
            probabilities[i, 0].item(), abs=1e-5
        )
    mean = F.normalize(rows.mean(dim=1), dim=-1)
    expected = (subject.scale * mean @ texts.T).softmax(dim=-1)
    assert dict(averaged.listed[1]["top_classes"])["star"] == pytest.approx(expected[1, 2].item(), abs=1e-5)


class Rounding(CocaSubject):
    """Equal texts differ in the last bits with their place in a batch, as in large products they do."""

    def encode_texts(self, texts):
        rows = super().encode_texts(texts)
        return rows * (1 - 1e-6 * torch.arange(len(rows)).unsqueeze(1))


def test_classes_of_one_name_tie(image_run):
    """So that a clip of either is wrong, wherever they stand on the card."""
    rounding = Rounding(load_checkpoint(image_run), CPU)
    card = Card("x", "X", "val", 2, 2, 2, [], {}, ["fox", "star", "fox"], ["n1", "n2", "n3"], {}, [])
    data = evaluated(rounding, ["n1", "n3", "n2"], card=card)
    texts = class_embeddings(rounding, card.classes, ["{}"])
    assert torch.equal(texts[0], texts[2])
    data.features.embeddings = {name: texts[[0, 2], None] for name in READINGS}
    found = classify(rounding, data, ClassificationConfig(), lead="video")
    assert found.figures["figures"]["video"]["top1"] == 0


def test_a_tie_does_not_depend_on_the_number_of_classes(subject):
    """Columns at a matrix's end may be summed in another order than those before."""
    for num_classes in range(2, 40):
        rows = F.normalize(torch.randn(num_classes, 768, generator=torch.Generator().manual_seed(0)), dim=-1)
        rows[-1] = rows[0]
        clips = F.normalize(torch.randn(5, 1, 768, generator=torch.Generator().manual_seed(1)), dim=-1)
        scores = _scores(clips, rows, Views.softmax_sum, 14.3)
        assert torch.equal(scores[:, 0], scores[:, -1])
