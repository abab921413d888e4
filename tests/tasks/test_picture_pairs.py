import pytest
import torch
from taught import CLASSES, batch_for, inputs_for, record, with_head
from tiny import POOLERS, coca, temporal_config

from coca_video.models.adaptors import Adaptor
from coca_video.tasks.picture_pairs import PicturePairs

MODELS = [*POOLERS, {"temporal": temporal_config(Adaptor.factorised)}]


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_each_picture_is_read_with_the_statement_and_both_are_judged(changes):
    task = PicturePairs(classes=CLASSES)
    model = with_head(coca(**changes), task)
    inputs = inputs_for(task, model, batch_for(task, 3))
    logits = task.predict(model, inputs)
    assert logits.shape == (3, 3)
    for i in range(3):
        ids = inputs.ids[i : i + 1, : inputs.prompt_mask[i].sum()]
        text = model.unimodal.features(ids)
        features = [
            model.multimodal(text, model.pool(inputs.tokens[i : i + 1, t : t + 1])[0]) for t in range(2)
        ]
        torch.testing.assert_close(logits[i : i + 1], model.task_head(torch.cat(features)))


def test_judge():
    """Two sentences, of which one has all its pairs right."""
    task = PicturePairs(classes=["False", "True"])
    answers, groups = ["True", "False", "True", "True"], ["a", "a", "b", "b"]
    records = [record(answer=answer, group=group) for answer, group in zip(answers, groups)]
    judged = task.judge(records, torch.eye(2)[[1, 0, 1, 0]].unsqueeze(1))
    assert judged.figures["accuracy"] == 75 and judged.figures["consistency"] == 50
    assert judged.figures["answer"] == {"False": 100, "True": pytest.approx(200 / 3)}
    without = task.judge(
        [record(answer=answer) for answer in answers], torch.eye(2)[[1, 0, 1, 0]].unsqueeze(1)
    )
    assert "consistency" not in without.figures
