import pytest
import torch
from tiny import noise

from coca_video.checkpoint import Checkpoint, load_checkpoint
from coca_video.data.tokenizer import BEGIN, END
from coca_video.evaluation.captioning import (
    _propose,
    caption_figures,
    describe_decoding,
    write_captions,
)
from coca_video.evaluation.embedding import encode_texts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(image_run) -> Checkpoint:
    """A model of a few steps, sharpened so that its captions depend on what it sees."""
    loaded = load_checkpoint(image_run)
    with torch.no_grad():
        for block in loaded.model.multimodal.blocks:
            for name, parameter in block.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
    return loaded


def one_by_one(checkpoint: Checkpoint, memory: torch.Tensor) -> str:
    """Greedy decoding written out: the whole text so far through the decoder, again and again."""
    ids = [BEGIN]
    while len(ids) < checkpoint.model.config.text.context_length and ids[-1] != END:
        given = torch.tensor([ids])
        with torch.inference_mode():
            logits = checkpoint.model.caption_logits(memory.unsqueeze(0), given, given >= 0)
        ids.append(int(logits[0, -1].argmax()))
    return checkpoint.tokenizer.decode(ids)


@pytest.mark.parametrize("batch_size", [2, 64])
def test_one_beam_is_the_likeliest_tokens(checkpoint, batch_size):
    memory = 3 * noise(5, 4, 16).detach()
    embeddings = noise(5, 12).detach()
    captions = write_captions(checkpoint, memory, embeddings, device=CPU, num_beams=1, batch_size=batch_size)
    assert captions == [one_by_one(checkpoint, row) for row in memory]
    assert len(set(captions)) > 1


def test_the_contrastive_half_chooses_among_the_beams(checkpoint):
    """Aimed at the text embedding of any one beam, the choice falls on that beam."""
    memory = 3 * noise(1, 4, 16).detach()
    beams = _propose(checkpoint, memory, num_beams=4)[0]
    assert len(set(beams)) == 4
    for beam in beams:
        target = encode_texts(checkpoint, [beam], device=CPU)
        assert write_captions(checkpoint, memory, target, device=CPU, num_beams=4) == [beam]


def test_the_decoding_is_named():
    assert describe_decoding(1) == "greedy"
    assert describe_decoding(3) == "beam search (3), the beam nearest to the clip's embedding"


def test_figures():
    captions = ["a red fox", "A red fox!", "a star"]
    figures = caption_figures(captions, ["a red fox", "a red fox", "a pizza"])
    assert figures["exact_match"] == pytest.approx(100 * 2 / 3)
    assert 0 < figures["cider_d"] < 10
    assert figures["distinct_ratio"] == pytest.approx(len({"a red fox", "a star"}) / 3)


def test_figures_of_right_and_wrong_captions():
    names = ["red fox on grass", "man rowing boat fast", "ghost in the dark"]
    assert caption_figures(names, names) == {
        "cider_d": pytest.approx(10.0),
        "exact_match": 100.0,
        "distinct_ratio": 1.0,
    }
    wrong = caption_figures(["none of these words"] * 3, names)
    assert wrong == {"cider_d": 0.0, "exact_match": 0.0, "distinct_ratio": pytest.approx(1 / 3)}
