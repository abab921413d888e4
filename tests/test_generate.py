import itertools
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coca_video.generate import Generated, Rules, beam_search, greedy, sample

BEGIN, END = 1, 2
CAPTIONS = [[5, 6, 7, 8, END], [4, END], [END]]


def begins(num_clips: int) -> Tensor:
    return torch.full((num_clips, 1), BEGIN)


def spelled(ids: Tensor, parents: Tensor | None = None) -> Tensor:
    """Spells CAPTIONS out for texts that agree with them so far; token 9 for all others."""
    chosen = []
    for row, caption in zip(ids.tolist(), CAPTIONS):
        begun = row == [BEGIN, *caption][: len(row)]
        chosen.append(caption[len(row) - 1] if begun and len(row) <= len(caption) else 9)
    return F.one_hot(torch.tensor(chosen), 10).float()


NUM_TOKENS, MAX_LENGTH = 4, 5
TABLE = 2 * torch.randn(997, NUM_TOKENS, generator=torch.Generator().manual_seed(0))


def next_hash(hashed: Tensor, ids: Tensor) -> Tensor:
    return (hashed * 31 + 7 * ids + 1) % len(TABLE)


def scored(ids: Tensor, parents: Tensor | None = None) -> Tensor:
    """Logits of four tokens that depend on the whole text so far."""
    hashed = torch.zeros(len(ids), dtype=torch.long)
    for column in ids.T:
        hashed = next_hash(hashed, column)
    return TABLE[hashed]


def tied(ids: Tensor, parents: Tensor | None = None) -> Tensor:
    """As `scored`, with many logits equal."""
    return scored(ids).round().clamp(-1, 1)


class CachedScored:
    """As `scored`, but keeps what it saw, and of each later call looks at nothing but the new columns."""

    def __init__(self) -> None:
        self.seen: list[list[int]] | None = None
        self.widths: list[int] = []

    def __call__(self, ids: Tensor, parents: Tensor | None) -> Tensor:
        if self.seen is None:
            assert parents is None
            self.seen, self.hashed = [[] for _ in ids], torch.zeros(len(ids), dtype=torch.long)
        if parents is not None:
            self.seen, self.hashed = [list(self.seen[i]) for i in parents.tolist()], self.hashed[parents]
        new = ids[:, len(self.seen[0]) :]
        self.widths.append(new.shape[1])
        for column in new.T:
            self.hashed = next_hash(self.hashed, column)
        self.seen = [row + more for row, more in zip(self.seen, new.tolist())]
        assert self.seen == ids.tolist()
        return TABLE[self.hashed]


MODES = {
    "greedy": greedy,
    "sample": lambda *args, **more: sample(
        *args, num_samples=3, generator=torch.Generator().manual_seed(0), **more
    ),
    "beam_search": lambda *args, **more: beam_search(*args, num_beams=3, length_penalty=0.7, **more),
}
every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())

RULES = [
    {},
    {"min_length": 4},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 3},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6, "min_length": MAX_LENGTH},
    {"repetition_penalty": 1.3, "min_length": 3, "no_repeat_ngram": 2},
]
every_rule = pytest.mark.parametrize("given", RULES, ids=str)


def rules(**given) -> Rules:
    return Rules(**({"end": END, "max_length": MAX_LENGTH} | given))


# The reference: one text at a time, in plain Python.


def softmaxed(logits: list[float]) -> list[float]:
    """Log-probabilities."""
    log_sum = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - log_sum for logit in logits]


def model_log_prob(text: list[int], token: int) -> float:
    return softmaxed(scored(torch.tensor([text]))[0].tolist())[token]


def reference_steps(text: list[int], rules: Rules) -> dict[int, float]:
    """The ids that may follow a text, with their log-probabilities."""
    logits = scored(torch.tensor([text]))[0].tolist()
    for token in set(text):
        penalty = rules.repetition_penalty
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    steps = dict(enumerate(softmaxed(logits)))
    allowed = {token: step for token, step in steps.items() if is_allowed(text, token, rules)}
    return allowed or {END: steps[END]}


def is_allowed(text: list[int], token: int, rules: Rules) -> bool:
    n, longer = rules.no_repeat_ngram, [*text, token]
    *earlier, last = [longer[i : i + n] for i in range(len(longer) - n + 1)] or [None]
    is_repeated = n > 0 and last in earlier
    return not is_repeated and not (token == END and len(longer) < rules.min_length)


def reference_greedy(prompt: list[int], rules: Rules) -> list[int]:
    text = list(prompt)
    while len(text) < rules.max_length and (text == prompt or text[-1] != END):
        steps = reference_steps(text, rules)
        text.append(max(steps, key=steps.get))
    return text


def all_texts(prompt: list[int], rules: Rules, length_penalty: float) -> dict[tuple[int, ...], float]:
    """Every text that may follow a prompt, with its score, best first."""
    found, open_texts = {}, [(list(prompt), 0.0)]
    while open_texts:
        text, total = open_texts.pop()
        num_generated = len(text) - len(prompt)
        if len(text) == rules.max_length or (num_generated and text[-1] == END):
            found[tuple(text)] = total / max(num_generated, 1) ** length_penalty
        else:
            open_texts += [([*text, id], total + step) for id, step in reference_steps(text, rules).items()]
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def texts(generated: Generated, clip: int = 0) -> list[tuple[int, ...]]:
    """A clip's texts without the fill after their `end`."""
    return [tuple(row[: 1 + row.index(END)] if END in row else row) for row in generated.ids[clip].tolist()]


# Ends and lengths


def test_rows_end_one_by_one():
    found = greedy(spelled, begins(3), rules=rules(max_length=20))
    assert found.ids.tolist() == [
        [[BEGIN, 5, 6, 7, 8, END]],
        [[BEGIN, 4, END, END, END, END]],
        [[BEGIN, END, END, END, END, END]],
    ]


def test_max_length_counts_begin():
    found = greedy(spelled, begins(3), rules=rules(max_length=3))
    assert found.ids.tolist() == [[[BEGIN, 5, 6]], [[BEGIN, 4, END]], [[BEGIN, END, END]]]


@every_mode
def test_stops_as_soon_as_all_have_ended(mode):
    lengths = []

    def ends_after_two(ids: Tensor, parents: Tensor | None) -> Tensor:
        lengths.append(ids.shape[1])
        only = torch.full((len(ids), 10), float("-inf"))
        only[:, END if ids.shape[1] > 2 else 5] = 0.0
        return only

    found = mode(ends_after_two, begins(2), rules=rules(max_length=20))
    assert found.ids[:, 0].tolist() == [[BEGIN, 5, 5, END]] * 2
    assert lengths == [1, 2, 3]


@every_mode
@every_rule
def test_rules_hold_for_every_text(mode, given):
    obeyed = rules(**{"max_length": 6} | given)
    found = mode(scored, torch.tensor([[BEGIN, 0], [BEGIN, 3], [0, 0], [1, 1]]), rules=obeyed)
    for clip, prompt in enumerate([[BEGIN, 0], [BEGIN, 3], [0, 0], [1, 1]]):
        possible = all_texts(prompt, obeyed, 0.0)
        scores = found.scores[clip].tolist()
        assert all(text in possible for text, score in zip(texts(found, clip), scores) if score > -math.inf)
        assert scores[0] > -math.inf


@every_mode
@pytest.mark.parametrize("end_logit", [0.0, float("-inf")])
def test_a_text_that_may_go_on_with_nothing_ends(mode, end_logit):
    def flat(ids: Tensor, parents: Tensor | None) -> Tensor:
        return torch.tensor([[0.5, 0.0, end_logit, 1.0]]).repeat(len(ids), 1)

    found = mode(flat, begins(1), rules=rules(max_length=9, min_length=9, no_repeat_ngram=1))
    assert set(texts(found)) <= {(BEGIN, *middle, END) for middle in [(0, 3), (3, 0)]} | {(BEGIN, END)}
    assert texts(found)[0] != (BEGIN, END)
    assert not found.scores.isnan().any() and not found.log_probs.isnan().any()


# Prompts


PROMPTS = [[BEGIN], [BEGIN, 3, 0], [BEGIN, END, 3], [BEGIN, 0, 0, 3, 3]]  # `end` in a prompt ends nothing


def padded(prompts: list[list[int]]) -> dict[str, Tensor]:
    longest = max(map(len, prompts))
    ids = [prompt + [3] * (longest - len(prompt)) for prompt in prompts]
    mask = [[i < len(prompt) for i in range(longest)] for prompt in prompts]
    return {"prompts": torch.tensor(ids), "prompt_mask": torch.tensor(mask)}


@pytest.mark.parametrize(
    "mode",
    [
        greedy,
        lambda *args, **more: sample(*args, num_samples=2, top_k=1, **more),
        lambda *args, **more: beam_search(*args, num_beams=5, length_penalty=-0.5, **more),
    ],
    ids=["greedy", "sample", "beam_search"],
)
@every_rule
def test_prompts_of_different_lengths_equal_one_at_a_time(mode, given):
    obeyed = rules(**given)
    together = mode(scored, **padded(PROMPTS), rules=obeyed)
    for clip, prompt in enumerate(PROMPTS):
        alone = mode(scored, torch.tensor([prompt]), rules=obeyed)
        fill = together.ids.shape[2] - alone.ids.shape[2]
        possible = alone.scores[0] > -math.inf
        assert torch.equal(together.ids[clip][possible], F.pad(alone.ids[0], (0, fill), value=END)[possible])
        assert torch.equal(together.log_probs[clip][possible], F.pad(alone.log_probs[0], (0, fill))[possible])
        torch.testing.assert_close(together.scores[clip], alone.scores[0])


@every_mode
def test_prompts_are_honoured(mode):
    found = mode(scored, **padded(PROMPTS), rules=rules(max_length=7))
    for clip, prompt in enumerate(PROMPTS):
        assert (found.ids[clip, :, : len(prompt)] == torch.tensor(prompt)).all()
        assert (found.log_probs[clip, :, : len(prompt)] == 0).all()


@every_mode
def test_a_prompt_that_fills_max_length_is_returned_as_it_is(mode):
    def never(ids: Tensor, parents: Tensor | None) -> Tensor:
        raise AssertionError("nothing is left to be scored")

    prompts = torch.tensor([[BEGIN, 3, 0], [BEGIN, END, 3]])
    found = mode(never, prompts, rules=rules(max_length=3))
    assert torch.equal(found.ids[:, 0], prompts)
    assert found.scores[:, 0].tolist() == [0.0, 0.0] and not found.log_probs.any()


# What the callable sees


@every_mode
def test_a_cache_reordered_by_parents_equals_none(mode):
    given = padded([[BEGIN, 3, 0], [BEGIN, 0], [BEGIN, 0, 3, 3], [BEGIN, 3]]) | {"rules": rules(max_length=9)}
    cached = CachedScored()
    found, expected = mode(cached, **given), mode(scored, **given)
    assert all(torch.equal(*pair) for pair in zip(vars(found).values(), vars(expected).values()))
    assert cached.widths[0] == 2 and set(cached.widths[1:]) == {1}


@every_mode
@every_rule
def test_log_probs_are_the_models_own(mode, given):
    found = mode(scored, **padded(PROMPTS), rules=rules(**given))
    for clip, prompt in enumerate(PROMPTS):
        for ids, log_probs in zip(found.ids[clip].tolist(), found.log_probs[clip].tolist()):
            end = ids.index(END, len(prompt)) if END in ids[len(prompt) :] else len(ids)
            generated = range(len(prompt), min(end + 1, len(ids)))
            expected = [model_log_prob(ids[:i], ids[i]) if i in generated else 0 for i in range(len(ids))]
            assert log_probs == pytest.approx(expected, abs=1e-5)
            assert set(ids[end:]) <= {END}
    if mode is not MODES["beam_search"]:
        torch.testing.assert_close(found.scores, found.log_probs.sum(dim=-1))
    assert (found.scores[:, 1:] <= found.scores[:, :-1]).all()


# Greedy


@every_rule
@pytest.mark.parametrize("prompt", [[BEGIN], [BEGIN, 0], [0, 3, 0]], ids=str)
def test_greedy_equals_the_reference(given, prompt):
    obeyed = rules(**{"max_length": 10} | given)
    assert texts(greedy(scored, torch.tensor([prompt]), rules=obeyed)) == [
        tuple(reference_greedy(prompt, obeyed))
    ]


@every_rule
@pytest.mark.parametrize("model", [scored, tied])
def test_one_beam_and_top_1_are_greedy(given, model):
    prompts = [list(prompt) for n in (1, 2, 3) for prompt in itertools.product((0, 1, 3), repeat=n)]
    everything = padded(prompts) | {"rules": rules(**{"max_length": 12} | given)}
    expected = greedy(model, **everything)
    generator = torch.Generator().manual_seed(0)
    for found in (
        *(beam_search(model, num_beams=1, length_penalty=x, **everything) for x in (-1.0, 0.0, 0.6, 2.0)),
        sample(model, top_k=1, temperature=0.3, generator=generator, **everything),
        sample(model, top_p=1e-6, generator=generator, **everything) if model is scored else expected,
    ):
        assert torch.equal(found.ids, expected.ids)
        assert torch.equal(found.log_probs, expected.log_probs)


# Beams


@every_rule
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
def test_enough_beams_equal_an_exhaustive_search(given, length_penalty):
    prompts, obeyed = [[BEGIN], [BEGIN, 0, 3]], rules(**given)
    found = beam_search(scored, **padded(prompts), rules=obeyed, num_beams=130, length_penalty=length_penalty)
    for clip, prompt in enumerate(prompts):
        expected = all_texts(prompt, obeyed, length_penalty)
        assert texts(found, clip)[: len(expected)] == list(expected)
        scores = [*expected.values()] + [-math.inf] * (130 - len(expected))
        assert found.scores[clip].tolist() == pytest.approx(scores, abs=1e-5)


def test_length_penalty_prefers_longer_texts():
    def two_texts(ids: Tensor, parents: Tensor | None) -> Tensor:
        """Either `end` at once, of probability 0.6, or 3, 3, `end`."""
        probs = {1: [0.0, 0.0, 0.6, 0.4], 2: [0.0, 0.0, 0.0, 1.0], 3: [0.0, 0.0, 1.0, 0.0]}[ids.shape[1]]
        return torch.tensor(probs).log().repeat(len(ids), 1)

    short, long = (BEGIN, END), (BEGIN, 3, 3, END)
    for length_penalty, expected in [(0.0, [short, long]), (1.0, [long, short])]:
        found = beam_search(two_texts, begins(1), rules=rules(), num_beams=2, length_penalty=length_penalty)
        assert texts(found) == expected
    assert found.scores[0].tolist() == pytest.approx([math.log(0.4) / 3, math.log(0.6)], abs=1e-5)


@pytest.mark.parametrize("num_beams", [2, 3, 7])
def test_beams_of_a_clip_are_distinct_texts_in_order(num_beams):
    prompts = padded([[BEGIN], [BEGIN, 0, 3], [BEGIN, 3]])
    found = beam_search(scored, **prompts, rules=rules(max_length=8), num_beams=num_beams)
    assert all(len(set(map(tuple, clip))) == num_beams for clip in found.ids.tolist())
    assert torch.equal(found.scores, found.scores.sort(dim=1, descending=True).values)
    assert found.scores.isfinite().all()


def test_beams_without_a_text_are_impossible_and_stop_nothing():
    lengths = []

    def one_text(ids: Tensor, parents: Tensor | None) -> Tensor:
        lengths.append(ids.shape[1])
        only = torch.full((len(ids), NUM_TOKENS), float("-inf"))
        only[:, 3 if ids.shape[1] < 4 else END] = 0.0
        return only

    found = beam_search(one_text, torch.tensor([[BEGIN, 3]]), rules=rules(max_length=9), num_beams=3)
    assert texts(found)[0] == (BEGIN, 3, 3, 3, END)
    assert found.scores.tolist() == [[0.0, -math.inf, -math.inf]]
    assert lengths == [2, 3, 4]


# Sampling


def frequencies(found: Generated, clip: int) -> dict[tuple[int, ...], float]:
    counts = Counter(texts(found, clip))
    return {text: count / found.ids.shape[1] for text, count in counts.items()}


def truncated(log_probs: dict[int, float], temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The probabilities that sampling should follow, one id at a time."""
    weights = {token: math.exp(step / temperature) for token, step in log_probs.items()}
    kept = sorted(weights, key=weights.get, reverse=True)[: top_k or None]
    total, reached, nucleus = sum(weights[token] for token in kept), 0.0, []
    for token in kept:
        if reached < top_p:
            nucleus.append(token)
        reached += weights[token] / total
    total = sum(weights[token] for token in nucleus)
    return {token: weights[token] / total for token in nucleus}


@every_rule
@pytest.mark.parametrize(
    "cut",
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.5, 0, 1.0), (1.0, 2, 1.0), (1.5, 9, 0.7), (1.0, 0, 0.3), (2.0, 3, 0.8)],
    ids=str,
)
def test_samples_follow_the_truncated_distribution(given, cut):
    temperature, top_k, top_p = cut
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "num_samples": 4000}
    prompts, obeyed = [[BEGIN, 3], [BEGIN, 0, 0], [3, 0, 3]], rules(**given)
    generator = torch.Generator().manual_seed(0)
    found = sample(scored, **padded(prompts), rules=obeyed, generator=generator, **settings)
    for clip, prompt in enumerate(prompts):
        expected, open_texts = {}, {tuple(prompt): 1.0}
        while open_texts:
            text, prob = open_texts.popitem()
            if len(text) == MAX_LENGTH or text[-1] == END:
                expected[text] = prob
                continue
            for token, step in truncated(reference_steps(list(text), obeyed), *cut).items():
                open_texts[(*text, token)] = prob * step
        seen = frequencies(found, clip)
        assert seen.keys() <= expected.keys()
        for text, prob in expected.items():
            assert seen.get(text, 0.0) == pytest.approx(prob, abs=5 * math.sqrt(prob / 4000) + 1e-3)


def test_samples_are_reproducible():
    first, again, other = (
        sample(scored, begins(3), rules=rules(), num_samples=5, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.ids, again.ids) and torch.equal(first.scores, again.scores)
    assert not torch.equal(first.ids, other.ids)


# What is refused


@pytest.mark.parametrize(
    "given, message",
    [
        ({"end": -1}, "end must be an id, at least 0, got -1"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"min_length": -1}, "min_length must be 0 to max_length, 5, got -1"),
        ({"min_length": 6}, "min_length must be 0 to max_length, 5, got 6"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0 and finite, got 0.0"),
        ({"repetition_penalty": math.nan}, "repetition_penalty must be above 0 and finite, got nan"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram must be at least 0, got -1"),
    ],
)
def test_rules_check_themselves(given, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        rules(**given)


@pytest.mark.parametrize(
    "mode, given, message",
    [
        (sample, {"num_samples": 0}, "num_samples must be at least 1, got 0"),
        (sample, {"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        (sample, {"top_k": -1}, "top_k must be at least 0, got -1"),
        (sample, {"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        (sample, {"top_p": 1.5}, "top_p must be above 0 and at most 1, got 1.5"),
        (beam_search, {"num_beams": 0}, "num_beams must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(mode, given, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        mode(scored, begins(1), rules=rules(), **given)


@every_mode
def test_prompts_are_checked(mode):
    with pytest.raises(ValueError, match="prompts must be at most max_length, 5 ids, long, got 6 ids"):
        mode(scored, torch.tensor([[BEGIN] * 6]), rules=rules())
    for mask in ([[False, True]], [[False, False]], [[True, True, True]]):
        with pytest.raises(ValueError, match="prompt_mask must be True for the first ids of each row"):
            mode(scored, torch.tensor([[BEGIN, 0]]), rules=rules(), prompt_mask=torch.tensor(mask))
