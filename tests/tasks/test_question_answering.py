import random

import pytest
import torch
from taught import CLASSES, batch_for, inputs_for, record, with_head
from tiny import POOLERS, coca, name, text_config

from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError
from coca_video.models.coca import CoCa
from coca_video.models.text_decoder import TextStyle
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import TaskInputs

MODELS = [*POOLERS, {"text": text_config(style=TextStyle.open_clip)}]
TEN = ["dog"] * 4 + ["A Cat."] * 3 + ["fox", "cow", "cow"]


def task_of_three(**settings) -> QuestionAnswering:
    return QuestionAnswering(classes=CLASSES, **settings)


def memory_of(model: CoCa, inputs: TaskInputs, row: int):
    return model.pool(inputs.tokens[row : row + 1, : inputs.frame_mask[row].sum()])[0]


def test_the_most_frequent_answers_are_the_classes():
    records = [record("?", *TEN), record("?", "cow"), record("?", "Fox "), record("none")]
    task = QuestionAnswering().prepared(records)
    assert task.classes == ["dog", "cat", "cow", "fox"]  # 4, 3, 3, 2 times
    assert QuestionAnswering(num_answers=2).prepared(records).classes == ["dog", "cat"]
    with pytest.raises(InputError, match="needs two classes at least, found none"):
        QuestionAnswering().prepared([record("what is it")])


def test_shares_of_ten_annotators():
    """VQA's rule: of four one, of three 0.9, of two 0.6, of one 0.3; what is no class has no share."""
    found = task_of_three().ask(record("?", *TEN), None).target
    expected = torch.tensor([0.9, 1.0, 0.3])
    torch.testing.assert_close(found, expected / expected.sum())
    assert not task_of_three().ask(record("?", *["cow"] * 10), None).target.any()


def test_the_one_answer_of_a_video():
    asked = task_of_three(prompt="{} answer:").ask(record("what is it", "Dog"), None)
    assert asked.target.tolist() == [0, 1, 0]
    assert (asked.text, asked.prompt) == ("dog", "what is it answer:")


def test_what_is_written_is_one_of_the_answers():
    task, asked = task_of_three(), record("what {} is", *TEN)
    drawn = {task.ask(asked, random.Random(seed)).text for seed in range(40)}
    assert drawn == {"dog", "cat", "fox", "cow"}
    assert task.ask(asked, None).text == "dog" and task.question(asked) == "what {} is"
    with pytest.raises(InputError, match="has no answers"):
        task.ask(record("what is it"), None)


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_the_answer_is_not_looked_at(changes):
    """Logits of a question with another answer behind it, with padding behind it, and alone."""
    task = task_of_three()
    model = with_head(coca(**changes), task)
    inputs = inputs_for(task, model, batch_for(task, 4))
    logits = task.predict(model, inputs)
    behind = inputs.text_mask & ~inputs.prompt_mask
    assert behind.any()
    others = inputs.ids.masked_fill(behind, 9)
    torch.testing.assert_close(task.predict(model, TaskInputs(**vars(inputs) | {"ids": others})), logits)
    for row in range(4):
        ids = inputs.ids[row : row + 1, : inputs.prompt_mask[row].sum()]
        features = model.multimodal(model.unimodal.features(ids), memory_of(model, inputs, row))
        torch.testing.assert_close(logits[row : row + 1], model.task_head(features))


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_losses_row_by_row(changes):
    """The mean over an answer's tokens, its end included, of what the decoder says behind the question."""
    task = task_of_three(caption_weight=0.5)
    model = with_head(coca(**changes), task)
    inputs = inputs_for(task, model, batch_for(task, 4))
    found = task.losses(model, inputs)
    for row in range(4):
        first, last = inputs.prompt_mask[row].sum(), inputs.text_mask[row].sum()
        ids = inputs.ids[row : row + 1, :last]
        said = model.caption_logits(memory_of(model, inputs, row), ids)[0].log_softmax(dim=-1)
        each = [-said[place - 1, ids[0, place]] for place in range(first, last)]
        torch.testing.assert_close(found["answer"][row], torch.stack(each).mean())
    logits = task.predict(model, inputs)
    torch.testing.assert_close(found["task"], task.choice_loss(logits, inputs.targets))
    torch.testing.assert_close(task.weighted(found), found["task"] + 0.5 * found["answer"])


def test_without_weight_nothing_is_written():
    task = task_of_three(caption_weight=0.0)
    model = with_head(coca(), task)
    losses = task.losses(model, inputs_for(task, model))
    assert losses.keys() == {"task", "accuracy"} and torch.equal(task.weighted(losses), losses["task"])


@pytest.mark.parametrize("changes", POOLERS, ids=name)
def test_writing_is_greedy(changes):
    """Question by question: always the likeliest next token, up to the end or the context's."""
    tokenizer = Tokenizer.train(["what is it", "dog cat"], vocab_size=280)
    model = coca(text=text_config(vocab_size=tokenizer.vocab_size), **changes)
    with torch.no_grad():
        model.heads.vocabulary.weight *= 30  # has an opinion
    task, questions = task_of_three(), ["what", "is it", "what what is"]
    ids, text_mask, prompt_mask = tokenizer.encode_prompted(questions, [""] * 3, max_length=12)
    frames = torch.rand(3, 2, 3, 16, 16)
    frame_mask = torch.tensor([[True, True], [True, False], [True, True]])
    tokens = model.encode_frames(frames, frame_mask)
    inputs = TaskInputs(tokens, frame_mask, ids, text_mask, prompt_mask, torch.zeros(3))
    answers = task.write(model, inputs, tokenizer)
    for row, answer in enumerate(answers):
        so_far = tokenizer.encode(questions[row], max_length=12)[:-1]
        length = len(so_far)
        while len(so_far) < 12 and so_far[-1] != tokenizer.end:
            logits = model.caption_logits(memory_of(model, inputs, row), torch.tensor([so_far]))
            so_far.append(logits[0, -1].argmax().item())
        assert answer == tokenizer.decode(so_far[length:]).strip()
    assert len(set(answers)) > 1


def test_judge_by_ten_annotators():
    """All matches count, in shares; figures by the type of question."""
    records = [record("?", *TEN, answer_type="other"), record("?", *["yes"] * 10, answer_type="yes/no")]
    chosen = torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    judged = task_of_three().judge(records, chosen)
    assert judged.figures == {"accuracy": 45, "distinct": 1, "answer_type": {"other": 90, "yes/no": 0}}
    assert judged.listed == [{"answer": "cat", "accuracy": 90}, {"answer": "dog", "accuracy": 0}]


def test_judge_of_one_answer_each():
    records = [record("?", "Dog", question_type="what"), record("?", "two men", question_type="who")]
    judged = task_of_three().judge_texts(records, ["dog", "two"])
    assert judged.figures == {"accuracy": 50, "distinct": 1, "question_type": {"what": 100, "who": 0}}
    with pytest.raises(InputError, match="its questions have no answers"):
        task_of_three().judge_texts([*records, record("?")], ["dog", "two", "x"])


def test_views_choose_together():
    views = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]]])
    assert task_of_three().choose(views) == ["fox"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "what"}, r"prompt must hold one \{\}, where the question stands, got 'what'"),
        ({"prompt": "{} {}"}, "prompt must hold one"),
        ({"num_answers": 1}, "num_answers must be at least 2, got 1"),
        ({"caption_weight": -1.0}, "caption_weight must not be negative, got -1.0"),
    ],
)
def test_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        QuestionAnswering(**settings)
