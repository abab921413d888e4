"""Open questions about a picture or a video: VQA v2, MSRVTT-QA, MSVD-QA (CoCa, section 4.2.2, appendix).

The question is the prompt of the decoder. One query reads the decoder's features of the question, and chooses
among the most frequent answers; beside it the decoder learns to write the answer behind the question, which
also lets it answer freely.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video.data.captions import Caption, Record
from coca_video.data.tokenizer import Tokenizer
from coca_video.errors import InputError
from coca_video.generate import Rules, greedy
from coca_video.metrics.question_answering import by_group, exact_accuracy, normalise_answer, vqa_accuracy
from coca_video.models.coca import CoCa
from coca_video.models.decoding import CachedDecoder, packed_decoders
from coca_video.ops.packing import Packing
from coca_video.tasks.choice import Choice, features_of_prompt, scores_of
from coca_video.tasks.task import Judged, TaskInputs

FULL_SHARE = 0.3  # of an answer that one annotator of ten gave, by VQA's rule; that of four or more is 1
GROUPS = ("answer_type", "question_type")  # labels by which figures are divided


@dataclass
class QuestionAnswering(Choice):
    name: ClassVar[str] = "question_answering"

    num_answers: int = 3129  # the most frequent ones are the classes
    prompt: str = "{}"  # how the question is put: "{} answer:", say
    caption_weight: float = 1.0  # of the loss of writing the answer; the paper co-trains without naming it
    open_ended: bool = False  # evaluation: answers are written, not chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt.count("{}") != 1:
            raise ValueError(f"prompt must hold one {{}}, where the question stands, got {self.prompt!r}")
        if self.num_answers < 2:
            raise ValueError(f"num_answers must be at least 2, got {self.num_answers}")
        if self.caption_weight < 0:
            raise ValueError(f"caption_weight must not be negative, got {self.caption_weight}")

    def classes_of(self, records: Iterable[Record]) -> list[str]:
        """Most frequent first; of equally frequent ones in the order of the alphabet."""
        counts = Counter(answer for record in records for answer in _answers(record))
        return sorted(counts, key=lambda answer: (-counts[answer], answer))[: self.num_answers]

    def ask(self, record: Record, rng: random.Random | None) -> Caption:
        answers = _answers(record)
        if not answers:
            raise InputError("has no answers")
        written = rng.choice(answers) if rng else answers[0]
        prompt = self.question(record)
        return Caption(written, f"{prompt} {written}", prompt, self._shares(answers))

    def question(self, record: Record) -> str:
        return self.prompt.replace("{}", record.text)

    def losses(self, model: CoCa, inputs: TaskInputs) -> dict[str, Tensor]:
        features, mask = self.features(model, inputs)
        losses = self.choice_losses(model.task_head(features, mask=mask), inputs.targets)
        if self.caption_weight:
            losses["answer"] = _writing_loss(model, features, inputs)
        return losses

    def weights(self) -> dict[str, float]:
        return {"task": 1.0, "answer": self.caption_weight}

    def features(self, model: CoCa, inputs: TaskInputs) -> tuple[Tensor, Tensor]:
        return features_of_prompt(model, inputs)

    def judge(self, records: list[Record], predictions: Tensor) -> Judged:
        return self.judge_texts(records, self.choose(predictions))

    def choose(self, predictions: Tensor) -> list[str]:
        """Answers by the logits of several views, 'n views c'."""
        return [self.classes[i] for i in scores_of(predictions).argmax(dim=1).tolist()]

    @torch.inference_mode()
    def write(self, model: CoCa, inputs: TaskInputs, tokenizer: Tokenizer) -> list[str]:
        """Answers in the model's own words, greedily."""
        memory, _ = model.pool(inputs.tokens, inputs.frame_mask)
        longest = int(inputs.prompt_mask.sum(dim=1).max())
        context = model.config.text.context_length
        with packed_decoders(model):
            decoder = CachedDecoder(model, memory, texts_per_clip=1, max_length=context)
            prompts, mask = inputs.ids[:, :longest], inputs.prompt_mask[:, :longest]
            rules = Rules(end=tokenizer.end, max_length=context)
            written = greedy(decoder, prompts, rules=rules, prompt_mask=mask).ids[:, 0]
        behind = [ids[number:] for ids, number in zip(written, mask.sum(dim=1).tolist())]
        return [tokenizer.decode(ids.tolist()).strip() for ids in behind]

    def judge_texts(self, records: list[Record], answers: list[str]) -> Judged:
        """VQA's accuracy where there are several annotators; else whether the answer is the reference."""
        references = [record.answers for record in records]
        if not all(references):
            raise InputError("its questions have no answers; a publisher's test server judges such a split")
        if all(len(each) > 1 for each in references):
            accuracy, scores = vqa_accuracy(answers, references)
        else:
            accuracy, scores = exact_accuracy(answers, [each[0] for each in references])
        figures = {"accuracy": accuracy, "distinct": len(set(answers)) / len(answers)}
        for label in GROUPS:
            if all(label in record.labels for record in records):
                figures[label] = by_group(scores, [record.labels[label] for record in records])
        listed = [{"answer": answer, "accuracy": score} for answer, score in zip(answers, scores)]
        return Judged(figures, listed)

    def _shares(self, answers: list[str]) -> Tensor:
        """float 'c', of sum 1: how right each class is; zeros where none is."""
        shares = torch.zeros(len(self.classes))
        for answer, count in Counter(answers).items():
            if answer in self._numbers:
                is_of_many = len(answers) > 1
                shares[self._numbers[answer]] = min(1.0, FULL_SHARE * count) if is_of_many else 1.0
        return shares / shares.sum().clamp(min=1e-6)


def _answers(record: Record) -> list[str]:
    """As classes spell them: VQA's are normalised by its rule, one annotator's but for case."""
    answers = getattr(record, "answers", [])
    if len(answers) > 1:
        return [_normalised(answer) for answer in answers]
    return [answer.strip().lower() for answer in answers]


_normalised = cache(normalise_answer)


def _writing_loss(model: CoCa, features: Tensor, inputs: TaskInputs) -> Tensor:
    """features 'b l d' -> the mean cross-entropy of each row's answer, `end` included: 'b'."""
    rows = Packing((inputs.text_mask & ~inputs.prompt_mask)[:, 1:])
    logits = model.heads.vocabulary(rows.pack(features[:, :-1]))
    each = F.cross_entropy(logits.float(), rows.pack(inputs.ids[:, 1:]), reduction="none")
    return rows.unpack(each).sum(dim=1) / rows.mask.sum(dim=1).clamp(min=1)
