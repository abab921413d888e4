"""Decoding with caches writes what decoding without them writes."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tiny import POOLERS, coca, name, noise, shaken, temporal_config, text_config
from torch import Tensor

from coca_video.generate import Rules, beam_search, greedy, sample
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa
from coca_video.models.decoding import CachedDecoder
from coca_video.models.text_decoder import Memory, TextStyle

FRAME_MASK = torch.tensor([[True, True, False], [True, True, True]])
VOCAB_SIZE = 20  # so small that texts end
MAX_LENGTH = 10
NUM_TEXTS = 3  # a clip

every_style = pytest.mark.parametrize("style", TextStyle)
every_adaptor = pytest.mark.parametrize("adaptor", Adaptor)


def model_and_memory(
    style: TextStyle, adaptor: Adaptor = Adaptor.attentional, poolers: dict = POOLERS[0], **text_changes
) -> tuple[CoCa, Memory]:
    text = text_config(style=style, vocab_size=VOCAB_SIZE, **text_changes)
    model = shaken(coca(text=text, temporal=temporal_config(adaptor), **poolers))
    with torch.no_grad():
        return model, model.pool(model.encode_frames(noise(2, 3, 3, 16, 16), FRAME_MASK), FRAME_MASK)[0]


def cached(model: CoCa, memory: Memory, *, num_texts: int = NUM_TEXTS, **options) -> CachedDecoder:
    return CachedDecoder(model, memory, texts_per_clip=num_texts, max_length=MAX_LENGTH, **options)


def uncached(model: CoCa, memory: Memory, *, num_texts: int = NUM_TEXTS) -> Callable:
    """The whole text anew at each step, each text with a memory of its own."""
    repeated = memory[torch.arange(len(memory)).repeat_interleave(num_texts)]

    @torch.no_grad()
    def next_logits(ids: Tensor, parents: Tensor | None = None) -> Tensor:
        return model.caption_logits(repeated, ids)[:, -1]

    return next_logits


def random_ids(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCAB_SIZE, (2 * NUM_TEXTS, MAX_LENGTH), generator=generator)


@pytest.mark.parametrize("poolers", POOLERS, ids=name)
@every_adaptor
@every_style
def test_cached_equals_uncached(style, adaptor, poolers):
    """A prompt of four tokens at once, then one by one; texts go on from others of their clip."""
    model, memory = model_and_memory(style, adaptor, poolers)
    ours, theirs = cached(model, memory), uncached(model, memory)
    ids, parents = random_ids(), None
    for length in range(4, MAX_LENGTH + 1):
        logits = theirs(ids[:, :length])
        assert logits.std() > 0.5
        atol = 1e-5 * logits.abs().max().item()  # float32 rounds at a number's size
        torch.testing.assert_close(ours(ids[:, :length], parents), logits, atol=atol, rtol=0)
        chosen = torch.randint(NUM_TEXTS, (2, NUM_TEXTS), generator=torch.Generator().manual_seed(length))
        parents = (chosen + NUM_TEXTS * torch.arange(2).unsqueeze(1)).flatten()
        ids = torch.cat([ids[parents, :length], ids[:, length:]], dim=1)


RULES = Rules(end=2, max_length=MAX_LENGTH, min_length=4, no_repeat_ngram=3)
WRITERS = {
    "greedy": (1, greedy),
    "sample": (NUM_TEXTS, partial(sample, num_samples=NUM_TEXTS, top_p=0.9)),
    "beam": (NUM_TEXTS, partial(beam_search, num_beams=NUM_TEXTS)),
}


@pytest.mark.parametrize("mode", WRITERS)
@every_adaptor
@every_style
def test_texts_do_not_depend_on_the_cache(style, adaptor, mode):
    model, memory = model_and_memory(style, adaptor)
    num_texts, write = WRITERS[mode]
    prompts = torch.tensor([[1, 5], [1, 7]])
    written = []
    for decoder in (cached, uncached):
        seed = {"generator": torch.Generator().manual_seed(0)} if mode == "sample" else {}
        written.append(write(decoder(model, memory, num_texts=num_texts), prompts, rules=RULES, **seed))
    ours, theirs = written
    assert torch.equal(ours.ids, theirs.ids) and ours.ids.shape[1] == num_texts
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=0)


@every_style
def test_the_memory_is_projected_once(style):
    """By each cross-attention, and once a clip, not a text."""
    model, memory = model_and_memory(style)
    projected = []
    for block in model.multimodal.blocks:
        if block.cross_attention is not None:
            for layer in (block.cross_attention.key, block.cross_attention.value):
                layer.register_forward_hook(lambda *call: projected.append(len(call[-1])))
    decoder, ids = cached(model, memory), random_ids()
    for length in range(1, MAX_LENGTH + 1):
        decoder(ids[:, :length])
    assert projected == [2] * 2 * model.config.text.num_multimodal_layers


@every_style
def test_each_token_is_computed_once(style):
    model, memory = model_and_memory(style)
    computed = []
    model.unimodal.blocks[0].self_attention.key.register_forward_hook(
        lambda *call: computed.append(call[-1].shape[1])
    )
    decoder, ids = cached(model, memory), random_ids()
    for length in (4, 5, 6):
        decoder(ids[:, :length])
    assert computed == [4, 1, 1]


@pytest.mark.parametrize(
    "style, poolers, num_prompt, num_graphs",
    [(TextStyle.coca, POOLERS[0], 1, 1), (TextStyle.open_clip, POOLERS[1], 3, 2)],
    ids=["one token", "prompt, masked memory"],
)
def test_a_step_is_compiled_once(style, poolers, num_prompt, num_graphs):
    """All shapes are static: a graph for the prompt, one for every single token, none for the next clips."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph

    model, memory = model_and_memory(style, poolers=poolers, num_unimodal_layers=1, num_multimodal_layers=1)
    compile, counts = partial(torch.compile, fullgraph=True, backend=backend), []
    for seed, clips in enumerate((memory, memory[torch.tensor([1, 0])])):
        compiled, plain = cached(model, clips, compile=compile), cached(model, clips)
        ids, parents = random_ids(seed), None
        for length in range(num_prompt, MAX_LENGTH + 1):
            logits = plain(ids[:, :length], parents)
            torch.testing.assert_close(compiled(ids[:, :length], parents), logits, atol=1e-5, rtol=0)
            counts.append(len(graphs))
            parents = torch.tensor([2, 0, 1, 3, 3, 4])
    assert counts[0] == 1 and set(counts[1:]) == {num_graphs}


def test_decoding_keeps_no_gradients():
    model, memory = model_and_memory(TextStyle.coca)
    assert not cached(model, memory)(random_ids()[:, :1]).requires_grad


def test_texts_end_with_the_context():
    model, memory = model_and_memory(TextStyle.coca, Adaptor.mean, POOLERS[0])
    with pytest.raises(ValueError, match="max_length must be at most the context"):
        CachedDecoder(model, memory, texts_per_clip=1, max_length=model.config.text.context_length + 1)
