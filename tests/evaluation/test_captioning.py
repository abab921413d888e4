import pytest
import torch
from tiny import noise

from coca_video.checkpoint import Checkpoint, load_checkpoint
from coca_video.evaluation.captioning import (
    Decoding,
    DecodingConfig,
    best_captions,
    propose,
    write_captions,
)
from coca_video.evaluation.embedding import encode_texts
from coca_video.models.text_decoder import Memory

CPU = torch.device("cpu")
GREEDY, BEAMS = DecodingConfig(mode=Decoding.greedy), DecodingConfig(num_beams=4, max_length=8)


@pytest.fixture(scope="module")
def checkpoint(image_run) -> Checkpoint:
    """A model of a few steps, sharpened so that its captions depend on what it sees."""
    loaded = load_checkpoint(image_run)
    with torch.no_grad():
        for block in loaded.model.multimodal.blocks:
            for name, parameter in block.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
        loaded.model.heads.vocabulary.weight[loaded.tokenizer.end] *= 0.3  # texts shall not end at once
    return loaded


def memory(num_clips: int) -> Memory:
    return Memory(3 * noise(num_clips, 4, 16).detach())


def one_by_one(checkpoint: Checkpoint, clip: Memory) -> tuple[str, float]:
    """Greedy decoding written out, without a cache: the text and its log-probability."""
    tokenizer, ids, log_prob = checkpoint.tokenizer, [checkpoint.tokenizer.begin], 0.0
    while len(ids) < checkpoint.model.config.text.context_length and ids[-1] != tokenizer.end:
        with torch.inference_mode():
            logits = checkpoint.model.caption_logits(clip, torch.tensor([ids]))
        log_probs = logits[0, -1].log_softmax(dim=-1)
        ids.append(int(log_probs.argmax()))
        log_prob += log_probs.max().item()
    return tokenizer.decode(ids), log_prob


@pytest.mark.parametrize("batch_size", [2, 64])
def test_greedy_is_the_likeliest_tokens(checkpoint, batch_size):
    clips, embeddings = memory(5), noise(5, 12).detach()
    settings = {"device": CPU, "decoding": GREEDY, "batch_size": batch_size}
    captions = write_captions(checkpoint, clips, embeddings, **settings)
    for i, [caption] in enumerate(captions):
        text, log_prob = one_by_one(checkpoint, clips[i : i + 1])
        assert caption.text == text and caption.log_prob == pytest.approx(log_prob, abs=1e-4)
        assert sum(caption.token_log_probs) == pytest.approx(log_prob, abs=1e-4)
        similarity = encode_texts(checkpoint, [text], device=CPU)[0] @ embeddings[i]
        assert caption.similarity == pytest.approx(similarity.item(), abs=1e-5)
    assert len({caption.text for [caption] in captions}) > 1


def proposed_texts(checkpoint: Checkpoint, clips: Memory, decoding: DecodingConfig) -> list[str]:
    with torch.inference_mode():
        ids = propose(checkpoint, clips, decoding).ids
    return [checkpoint.tokenizer.decode(row) for row in ids[0].tolist()]


def test_the_contrastive_half_chooses_among_the_beams(checkpoint):
    """Aimed at the text embedding of any one beam, the choice falls on that beam."""
    clips = memory(1)
    beams = proposed_texts(checkpoint, clips, BEAMS)
    assert len(set(beams)) == 4
    for beam in beams:
        target = encode_texts(checkpoint, [beam], device=CPU)
        assert best_captions(checkpoint, clips, target, device=CPU, decoding=BEAMS) == [beam]


def test_several_captions_are_ranked(checkpoint):
    clips, embeddings = memory(3), noise(3, 12).detach()
    for nearest in (True, False):
        decoding = DecodingConfig(num_beams=5, num_captions=3, nearest=nearest)
        for captions in write_captions(checkpoint, clips, embeddings, device=CPU, decoding=decoding):
            ranks = [caption.similarity if nearest else caption.log_prob for caption in captions]
            assert len(captions) == 3 and ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("mode", Decoding)
def test_every_mode_honours_the_prompt_and_the_lengths(checkpoint, mode):
    decoding = DecodingConfig(mode=mode, prompt="a fox", min_length=11, max_length=12)
    [[caption]] = write_captions(checkpoint, memory(1), noise(1, 12).detach(), device=CPU, decoding=decoding)
    assert caption.text.startswith("a fox") and 11 <= len(caption.ids) <= 12
    prompt = checkpoint.tokenizer.encode("a fox", max_length=12)[:-1]
    assert caption.ids[: len(prompt)] == prompt and not any(caption.token_log_probs[: len(prompt)])
    assert all(log_prob < 0 for log_prob in caption.token_log_probs[len(prompt) : 11])


def test_samples_depend_on_the_seed_alone(checkpoint):
    clips, embeddings = memory(2), noise(2, 12).detach()

    def texts(seed: int) -> list[str]:
        decoding = DecodingConfig(mode=Decoding.sample, num_captions=4, temperature=2.0, seed=seed)
        written = write_captions(checkpoint, clips, embeddings, device=CPU, decoding=decoding)
        return [caption.text for captions in written for caption in captions]

    assert texts(0) == texts(0) != texts(1)
    assert len(set(texts(0))) > 4


def test_an_empty_prompt_is_the_begin_token(checkpoint):
    with torch.inference_mode():
        ids = propose(checkpoint, memory(2), BEAMS).ids
    assert (ids[..., 0] == checkpoint.tokenizer.begin).all() and ids.shape[:2] == (2, 4)


def test_the_decoding_is_named():
    assert str(GREEDY) == "greedy"
    assert str(BEAMS) == "beam search (4), the nearest to the clip's embedding"
    samples = DecodingConfig(mode=Decoding.sample, num_captions=3, nearest=False)
    assert str(samples) == "samples (3)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, got 0"),
        ({"num_captions": 9}, "beam decoding writes at most 8 captions a clip, got num_captions 9"),
        ({"mode": Decoding.greedy, "num_captions": 2}, "greedy decoding writes at most 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"top_p": 1.5}, r"top_p in \(0, 1\]"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be positive, got 0.0"),
        ({"min_length": -1}, "min_length must not be negative, got -1"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        DecodingConfig(**settings)
