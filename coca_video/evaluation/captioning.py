"""Captions from memories, and how good they are."""

from dataclasses import dataclass
from enum import Enum

import torch
from einops import rearrange
from torch import Tensor

from coca_video.checkpoint import Checkpoint
from coca_video.evaluation.embedding import encode_texts
from coca_video.generate import Generated, Rules, beam_search, greedy, sample
from coca_video.models.decoding import CachedDecoder, packed_decoders
from coca_video.models.text_decoder import Memory


class Decoding(str, Enum):
    greedy = "greedy"
    beam = "beam"
    sample = "sample"


@dataclass
class DecodingConfig:
    """How captions are written. The defaults are the best of docs/LOG.md."""

    mode: Decoding = Decoding.beam
    num_beams: int = 8  # beam
    num_captions: int = 1  # a clip: the best beams, or that many samples
    nearest: bool = True  # the best: nearest to the clip's embedding, else the likeliest
    prompt: str = ""  # what every caption begins with
    max_length: int = 0  # tokens, begin, prompt and end included; 0 = the model's context
    min_length: int = 0  # tokens, likewise
    length_penalty: float = 0.0  # beam: log-probabilities are divided by length ** this
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0  # tokens; 0 = off
    temperature: float = 1.0  # sample
    top_k: int = 0  # sample; 0 = off
    top_p: float = 1.0  # sample
    seed: int = 0  # sample

    def __post_init__(self) -> None:
        for name in ("num_beams", "num_captions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature <= 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            found = f"{self.temperature}, {self.top_p} and {self.top_k}"
            raise ValueError(
                f"temperature must be positive, top_p in (0, 1] and top_k not negative, got {found}"
            )
        for name in ("min_length", "max_length", "no_repeat_ngram"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty must be positive, got {self.repetition_penalty}")
        most = {Decoding.greedy: 1, Decoding.beam: self.num_beams}.get(self.mode, self.num_captions)
        if self.num_captions > most:
            found = f"num_captions {self.num_captions}"
            raise ValueError(f"{self.mode.value} decoding writes at most {most} captions a clip, got {found}")

    def __str__(self) -> str:
        """What a result says of how its captions were written."""
        if self.mode is Decoding.greedy:
            return "greedy"
        is_beam = self.mode is Decoding.beam
        texts = f"beam search ({self.num_beams})" if is_beam else f"samples ({self.num_captions})"
        return texts + (", the nearest to the clip's embedding" if self.nearest else "")


@dataclass
class Caption:
    text: str
    log_prob: float  # of all its tokens but the prompt's, natural logarithm
    similarity: float  # cosine to the clip's embedding
    ids: list[int]
    token_log_probs: list[float]  # one an id; 0 for the prompt


@torch.inference_mode()
def write_captions(
    checkpoint: Checkpoint,
    memory: Memory,
    embeddings: Tensor,
    *,
    device: torch.device,
    decoding: DecodingConfig,
    batch_size: int = 64,
) -> list[list[Caption]]:
    """Caption memory and unit embeddings 'b e' of clips -> decoding.num_captions captions each, best first.

    Decoding proposes captions, and the contrastive half of the model chooses (`decoding.nearest`).
    """
    captions = []
    with packed_decoders(checkpoint.model):
        for i in range(0, len(memory), batch_size):
            proposed = propose(checkpoint, memory[i : i + batch_size].to(device), decoding)
            targets = embeddings[i : i + batch_size].cpu()
            captions += _ranked(checkpoint, proposed, targets, decoding=decoding, device=device)
    return captions


def best_captions(
    checkpoint: Checkpoint,
    memory: Memory,
    embeddings: Tensor,
    *,
    device: torch.device,
    decoding: DecodingConfig,
) -> list[str]:
    """`write_captions`' first text for each clip."""
    written = write_captions(checkpoint, memory, embeddings, device=device, decoding=decoding)
    return [captions[0].text for captions in written]


def propose(checkpoint: Checkpoint, memory: Memory, decoding: DecodingConfig) -> Generated:
    """k texts for each of b clips, as ids 'b k l', likeliest first."""
    context = checkpoint.model.config.text.context_length
    tokenizer, max_length = checkpoint.tokenizer, min(decoding.max_length or context, context)
    rules = Rules(
        end=tokenizer.end,
        max_length=max_length,
        min_length=min(decoding.min_length, max_length),
        repetition_penalty=decoding.repetition_penalty,
        no_repeat_ngram=decoding.no_repeat_ngram,
    )
    begun = tokenizer.encode(decoding.prompt, max_length=max_length)[:-1]
    prompts = torch.tensor([begun] * len(memory), device=memory.tokens.device)
    texts_per_clip = {Decoding.beam: decoding.num_beams, Decoding.sample: decoding.num_captions}
    num_texts = texts_per_clip.get(decoding.mode, 1)
    decoder = CachedDecoder(checkpoint.model, memory, texts_per_clip=num_texts, max_length=max_length)
    if decoding.mode is Decoding.greedy:
        return greedy(decoder, prompts, rules=rules)
    if decoding.mode is Decoding.beam:
        beams = {"num_beams": num_texts, "length_penalty": decoding.length_penalty}
        return beam_search(decoder, prompts, rules=rules, **beams)
    return sample(
        decoder,
        prompts,
        rules=rules,
        num_samples=num_texts,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        generator=torch.Generator(memory.tokens.device).manual_seed(decoding.seed),
    )


def _ranked(
    checkpoint: Checkpoint,
    proposed: Generated,
    targets: Tensor,
    *,
    decoding: DecodingConfig,
    device: torch.device,
) -> list[list[Caption]]:
    texts = [[checkpoint.tokenizer.decode(ids) for ids in row] for row in proposed.ids.tolist()]
    embeddings = encode_texts(checkpoint, [text for row in texts for text in row], device=device)
    embeddings = rearrange(embeddings, "(b k) e -> b k e", b=len(targets))
    similarity = torch.einsum("be,bke->bk", targets, embeddings)
    order = similarity if decoding.nearest else proposed.scores.cpu()
    best = order.argsort(dim=1, descending=True, stable=True)[:, : decoding.num_captions]
    ids, log_probs = proposed.ids.tolist(), proposed.log_probs.tolist()
    return [
        [
            Caption(texts[b][k], sum(log_probs[b][k]), similarity[b, k].item(), ids[b][k], log_probs[b][k])
            for k in row
        ]
        for b, row in enumerate(best.tolist())
    ]
