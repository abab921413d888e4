"""Writing texts: pure functions over a callable that scores the next token.

Legend: `b` clips, `k` texts a clip, `r` rows (b k), `l` ids of a text, `v` vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

IMPOSSIBLE = float("-inf")
_SORTED_FIRST = (512, 8192)  # tokens: the likeliest so many, before all of them

# (log-probabilities of the next id 'r v', the id of a row that has no choice 'r', which rows have none 'r')
# -> (parents as in NextLogits, the next id of each parent 'r')
Choose = Callable[[Tensor, Tensor, Tensor], tuple[Tensor | None, Tensor]]


class NextLogits(Protocol):
    def __call__(self, ids: Tensor, parents: Tensor | None) -> Tensor:
        """Every row's text so far, ids 'r l' -> logits 'r v' of the next token, on the same device.

        parents: int 'r', the row of the previous call that each row goes on from (None: its own), so that
            a cache can be reordered.
        The first call brings the columns that are prompt in every row, each later one a column more.
        ids is a view of a tensor still being written: clone what is to be kept.
        """


@dataclass(frozen=True)
class Rules:
    """What a text must obey, however its ids are chosen; a ValueError if a rule makes no sense.

    A row that may go on with no id at all (say, all n-grams are used up) may `end`, whatever the rules say.
    """

    end: int
    max_length: int  # ids in a text, prompt and end included; there it is cut
    min_length: int = 0  # ids likewise; `end` cannot make a text shorter
    repetition_penalty: float = 1.0  # CTRL (arXiv 1909.05858, section 4.1), for all ids of prompt and text
    no_repeat_ngram: int = 0  # no n-gram of ids occurs twice in prompt and text; 0: off

    def __post_init__(self) -> None:
        _require(self.end >= 0, "end", self.end, "an id, at least 0")
        _require(self.max_length >= 1, "max_length", self.max_length, "at least 1")
        allowed = f"0 to max_length, {self.max_length}"
        _require(0 <= self.min_length <= self.max_length, "min_length", self.min_length, allowed)
        is_finite = 0 < self.repetition_penalty < float("inf")
        _require(is_finite, "repetition_penalty", self.repetition_penalty, "above 0 and finite")
        _require(self.no_repeat_ngram >= 0, "no_repeat_ngram", self.no_repeat_ngram, "at least 0")


@dataclass
class Generated:
    """Texts, the best of each clip first."""

    ids: Tensor  # int 'b k l': prompt, text, `end`; after its `end` a row holds only `end`
    log_probs: Tensor  # 'b k l': of each generated id, by the model itself, without rules; 0 for all others
    scores: Tensor  # 'b k': what the mode ranks by


def greedy(
    next_logits: NextLogits, prompts: Tensor, *, rules: Rules, prompt_mask: Tensor | None = None
) -> Generated:
    """The likeliest id again and again; one text a clip, its score the sum of its log_probs.

    prompts: int 'b l', each begins with the begin id. An `end` in a prompt does not end the text.
    prompt_mask: bool 'b l', True = real (None: all), real ids first.
    Raises ValueError for a prompt of more than max_length ids; one of exactly so many is returned as it is.
    """

    def choose(steps: Tensor, fixed: Tensor, is_fixed: Tensor) -> tuple[None, Tensor]:
        return None, steps.topk(1).indices.squeeze(1)  # not argmax: ties fall as in sample and beam_search

    ids, log_probs = _write(next_logits, choose, prompts, prompt_mask, rules, 1)
    return Generated(ids, log_probs, log_probs.sum(dim=-1))


def sample(
    next_logits: NextLogits,
    prompts: Tensor,
    *,
    rules: Rules,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    prompt_mask: Tensor | None = None,
) -> Generated:
    """num_samples texts a clip, drawn independently; the score of a text is the sum of its log_probs.

    temperature: divides the logits. top_k: only the k likeliest ids (0: all). top_p: of these, only the
    fewest whose probability reaches it, at least one (nucleus sampling, arXiv 1904.09751).
    generator: on the device of prompts. prompts, prompt_mask: as for `greedy`.
    """
    _require(num_samples >= 1, "num_samples", num_samples, "at least 1")
    _require(0 < temperature < float("inf"), "temperature", temperature, "above 0 and finite")
    _require(top_k >= 0, "top_k", top_k, "at least 0")
    _require(0 < top_p <= 1, "top_p", top_p, "above 0 and at most 1")

    def choose(steps: Tensor, fixed: Tensor, is_fixed: Tensor) -> tuple[None, Tensor]:
        steps = (steps - steps.amax(dim=-1, keepdim=True)) / temperature
        probs, tokens = _likeliest(steps.softmax(dim=-1), top_k=top_k, top_p=top_p)
        return None, tokens.gather(1, probs.multinomial(1, generator=generator)).squeeze(1)

    ids, log_probs = _write(next_logits, choose, prompts, prompt_mask, rules, num_samples)
    scores, order = log_probs.sum(dim=-1).sort(dim=1, descending=True)
    order = order.unsqueeze(-1)
    return Generated(ids.take_along_dim(order, dim=1), log_probs.take_along_dim(order, dim=1), scores)


def beam_search(
    next_logits: NextLogits,
    prompts: Tensor,
    *,
    rules: Rules,
    num_beams: int,
    length_penalty: float = 0.0,
    prompt_mask: Tensor | None = None,
) -> Generated:
    """The best num_beams texts a clip found by extending that many at a time; ended ones compete on.

    The score of a text is the sum of its generated ids' log-probabilities after repetition_penalty, not
    renormalised over the ids that the rules allow, divided by the number of these ids ** length_penalty.
    All texts of a clip differ; where fewer than num_beams exist, the rest have score -inf and mean nothing.
    prompts, prompt_mask: as for `greedy`, which one beam equals.
    """
    _require(num_beams >= 1, "num_beams", num_beams, "at least 1")
    beams = _Beams(len(prompts), num_beams, length_penalty, prompts.device)
    ids, log_probs = _write(next_logits, beams.choose, prompts, prompt_mask, rules, num_beams)
    return Generated(ids, log_probs, beams.scores)


def _likeliest(probs: Tensor, *, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """probs 'r v' -> those that sampling may choose from and their tokens, both 'r c'.

    They need not sum to 1. Sorting a whole vocabulary takes as long as a layer of the model; the nucleus
    mostly lies within the first few hundred.
    """
    num_tokens = probs.shape[1]
    if not top_k and top_p == 1:
        return probs, torch.arange(num_tokens, device=probs.device).expand(probs.shape)
    for num_sorted in [top_k] if top_k else [*_SORTED_FIRST, num_tokens]:
        first, tokens = probs.topk(min(num_sorted, num_tokens))
        if (first.sum(dim=-1) >= top_p).all():
            break
    if top_k:
        first = first / first.sum(dim=-1, keepdim=True)
    return first.masked_fill(first.cumsum(dim=-1) - first >= top_p, 0.0), tokens


class _Beams:
    """The beams of a search, 'b k', best first."""

    def __init__(self, num_clips: int, num_beams: int, length_penalty: float, device: torch.device) -> None:
        self.length_penalty = length_penalty
        self.sums = torch.full((num_clips, num_beams), IMPOSSIBLE, device=device)  # of log-probabilities
        self.sums[:, 0] = 0.0  # all beams begin alike: only one may be extended
        self.num_generated = torch.zeros_like(self.sums)
        self.scores = self.sums

    def choose(self, steps: Tensor, fixed: Tensor, is_fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the best extensions of each clip's beams: a Choose."""
        num_beams = self.sums.shape[1]
        # Each beam's own candidates first: without a sum's rounding, so that one beam is greedy to the bit.
        candidates = steps.topk(min(num_beams, steps.shape[1]))
        steps, tokens = (rearrange(each, "(b k) c -> b k c", k=num_beams) for each in candidates)
        sums = self.sums.unsqueeze(-1) + steps
        num_generated = self.num_generated + rearrange(~is_fixed, "(b k) -> b k", k=num_beams)
        scores = sums / num_generated.clamp(min=1).unsqueeze(-1) ** self.length_penalty
        self.scores, best = scores.flatten(1).topk(num_beams)
        beam = best // steps.shape[2]
        self.sums, self.num_generated = sums.flatten(1).gather(1, best), num_generated.gather(1, beam)
        rows = torch.arange(len(fixed), device=fixed.device).view_as(beam)
        parents, chosen = rows.gather(1, beam).flatten(), tokens.flatten(1).gather(1, best).flatten()
        # An impossible beam keeps to its prompt and then ends: it must not keep the search from stopping.
        return parents, torch.where(self.sums.isneginf().flatten(), fixed, chosen)


@torch.no_grad()
def _write(
    next_logits: NextLogits, choose: Choose, prompts: Tensor, mask: Tensor | None, rules: Rules, k: int
) -> tuple[Tensor, Tensor]:
    """ids and log_probs 'b k l' of k texts a clip, as in Generated but in the order of `choose`."""
    ids, prompt_lengths = _laid_out(prompts, mask, rules, k)
    log_probs = torch.zeros(ids.shape, device=ids.device)
    ended = torch.zeros_like(prompt_lengths, dtype=torch.bool)
    parents, length = None, int(prompt_lengths.min())
    while length < rules.max_length and not ended.all():
        logits = next_logits(ids[:, :length], parents).float()
        fixed, is_fixed = ids[:, length].clone(), ended | (length < prompt_lengths)
        own = logits.log_softmax(dim=-1)
        steps = _forbidden(_penalised(own, logits, ids[:, :length], rules), ids[:, :length], rules)
        parents, chosen = choose(_fix_(steps, fixed, is_fixed), fixed, is_fixed)
        new = own[torch.arange(len(ids), device=ids.device) if parents is None else parents, chosen]
        if parents is not None:
            ids, log_probs, ended, is_fixed = (each[parents] for each in (ids, log_probs, ended, is_fixed))
        ids[:, length] = chosen
        log_probs[:, length] = new.masked_fill(is_fixed, 0.0)
        ended = ended | (~is_fixed & (chosen == rules.end))
        length += 1
    return tuple(rearrange(each[:, :length], "(b k) l -> b k l", k=k) for each in (ids, log_probs))


def _laid_out(prompts: Tensor, mask: Tensor | None, rules: Rules, k: int) -> tuple[Tensor, Tensor]:
    """ids 'r max_length', each row its prompt and then `end`; the lengths of the prompts 'r'."""
    mask = torch.ones_like(prompts, dtype=torch.bool) if mask is None else mask
    lengths = mask.sum(dim=1)
    longest = int(lengths.max())
    allowed = f"at most max_length, {rules.max_length} ids, long"
    _require(longest <= rules.max_length, "prompts", f"{longest} ids", allowed)
    is_front = torch.arange(prompts.shape[1], device=prompts.device) < lengths.clamp(min=1).unsqueeze(1)
    if not torch.equal(mask, is_front):
        allowed = "True for the first ids of each row, at least one, and for no others"
        raise ValueError(f"prompt_mask must be {allowed}, got {mask.int().tolist()}")
    ids = torch.full((len(prompts), rules.max_length), rules.end, device=prompts.device)
    ids[:, : prompts.shape[1]] = torch.where(mask, prompts, rules.end)[:, : rules.max_length]
    return ids.repeat_interleave(k, dim=0), lengths.repeat_interleave(k)  # a copy: einops may give a view


def _penalised(own: Tensor, logits: Tensor, ids: Tensor, rules: Rules) -> Tensor:
    """Log-probabilities 'r v' after the repetition penalty; `own`, the model's, where there is none."""
    penalty = rules.repetition_penalty
    if penalty == 1:
        return own
    is_used = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(is_used, lowered, logits).log_softmax(dim=-1)


def _forbidden(steps: Tensor, ids: Tensor, rules: Rules) -> Tensor:
    """Log-probabilities 'r v' of what may follow ids 'r l', with -inf for what the rules forbid."""
    is_too_short, n = ids.shape[1] + 1 < rules.min_length, rules.no_repeat_ngram
    if not is_too_short and not 0 < n <= ids.shape[1]:
        return steps
    ending = steps[:, rules.end].clamp(min=torch.finfo(steps.dtype).min)  # possible, whatever the model says
    steps = steps.masked_fill(_repeating(ids, n, num_tokens=steps.shape[1]), IMPOSSIBLE)
    if is_too_short:
        steps[:, rules.end] = IMPOSSIBLE
    is_stuck = steps.isneginf().all(dim=-1)
    steps[:, rules.end] = torch.where(is_stuck, ending, steps[:, rules.end])
    return steps


def _fix_(steps: Tensor, fixed: Tensor, is_fixed: Tensor) -> Tensor:
    """Rows without a choice have one id alone, `fixed`, at log-probability 0.

    In place, though `steps` may be the model's own: of such rows, nothing else is read. Passes over a whole
    vocabulary are what decoding costs beside the model.
    """
    steps += torch.where(is_fixed, IMPOSSIBLE, 0.0).unsqueeze(1)  # masked_fill_ would copy the whole mask
    rows = torch.arange(len(steps), device=steps.device)
    steps[rows, fixed] = torch.where(is_fixed, 0.0, steps[rows, fixed])
    return steps


def _repeating(ids: Tensor, n: int, *, num_tokens: int) -> Tensor:
    """bool 'r v': would this id complete an n-gram that ids 'r l' already hold?"""
    found = torch.zeros(len(ids), num_tokens + 1, dtype=torch.bool, device=ids.device)
    if 0 < n <= ids.shape[1]:
        ngrams = ids.unfold(1, n, 1)
        latest = ids[:, ids.shape[1] - n + 1 :].unsqueeze(1)
        is_begun = (ngrams[..., :-1] == latest).all(dim=-1)
        # n-grams that are not begun anew go to the column past the vocabulary
        found.scatter_(1, torch.where(is_begun, ngrams[..., -1], num_tokens), True)
    return found[:, :num_tokens]


def _require(is_met: bool, name: str, value: object, allowed: str) -> None:
    if not is_met:
        raise ValueError(f"{name} must be {allowed}, got {value}")
