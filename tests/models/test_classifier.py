import pytest
import torch
from tiny import noise, shaken

from coca_video.models.classifier import PooledClassifier


def classifier(num_parts: int = 1) -> PooledClassifier:
    torch.manual_seed(0)
    return PooledClassifier(16, 2, num_classes=3, num_parts=num_parts)


@pytest.mark.parametrize("num_parts", [1, 2])
def test_begins_undecided(num_parts):
    logits = classifier(num_parts)(noise(4, 5, 16))
    assert logits.shape == (4 // num_parts, 3) and not logits.any()


@pytest.mark.parametrize("num_parts", [1, 2])
def test_what_the_mask_hides_changes_nothing(num_parts):
    head, features = shaken(classifier(num_parts)), noise(4, 5, 16).detach()
    mask = torch.arange(5) < torch.tensor([[5], [3], [1], [4]])
    changed = features.masked_fill(~mask.unsqueeze(-1), 7.0)
    torch.testing.assert_close(head(changed, mask=mask), head(features, mask=mask))
    assert not torch.allclose(head(changed), head(features))
    alone = [
        head(features[i : i + num_parts, :5], mask=mask[i : i + num_parts]) for i in range(0, 4, num_parts)
    ]
    torch.testing.assert_close(head(features, mask=mask), torch.cat(alone))


def test_parts_are_pooled_singly_and_classified_together():
    head, features = shaken(classifier(2)), noise(4, 5, 16).detach()
    pooled = head.pooler(features)[:, 0]
    first, second = (torch.cat(tuple(pooled[i : i + 2])) for i in (0, 2))
    hidden = torch.nn.functional.gelu(head.hidden(torch.stack([first, second])))
    torch.testing.assert_close(head(features), head.classes(hidden))
    swapped = features[[1, 0, 2, 3]]
    assert not torch.allclose(head(swapped)[0], head(features)[0])  # the left picture is not the right one
    torch.testing.assert_close(head(swapped)[1], head(features)[1])


def test_a_class_alone_is_none():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        PooledClassifier(16, 2, num_classes=1)
