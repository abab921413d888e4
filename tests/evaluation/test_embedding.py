import pytest
import torch
import torch.nn.functional as F
from videos import coloured_frames

from coca_video.checkpoint import load_checkpoint
from coca_video.data.samples import Sample
from coca_video.evaluation.embedding import encode_clips, encode_texts
from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.text_decoder import Memory

CPU = torch.device("cpu")


@pytest.fixture(
    scope="module", params=[(adaptor, 0) for adaptor in Adaptor] + [("attentional", 4), ("joint", 4)], ids=str
)
def checkpoint(request, image_run):
    """A model of pictures that reads clips in every way, with time positions that matter if it has some."""
    adaptor, num_positions = request.param
    loaded = load_checkpoint(image_run, temporal=TemporalConfig(Adaptor(adaptor), num_positions))
    if num_positions:
        torch.nn.init.normal_(loaded.model.temporal.positions.table)
    return loaded


def clip(num_frames: int, *, start: int = 0) -> Sample:
    frames = torch.from_numpy(coloured_frames(start + num_frames, height=16, width=16)[start:])
    return Sample(frames.permute(0, 3, 1, 2).contiguous(), "a clip", f"clip {start}")


def real(memory: Memory) -> torch.Tensor:
    """One clip's memory without its padding: 'q d'."""
    return memory.tokens[0] if memory.mask is None else memory.tokens[0][memory.mask[0]]


def test_a_frame_alone_is_every_view(checkpoint):
    found = encode_clips(checkpoint, [[clip(1), clip(1, start=7)]], device=CPU)
    torch.testing.assert_close(found.first_frame, found.video)
    torch.testing.assert_close(found.mean_of_frames, found.video)
    torch.testing.assert_close(found.first_frame_memory.tokens, found.video_memory.tokens)
    assert not torch.allclose(found.video[0], found.video[1], atol=1e-3)


def test_views_are_what_they_say(checkpoint):
    sample = clip(5, start=3)
    found = encode_clips(checkpoint, [[sample]], device=CPU)
    pixels = checkpoint.preprocessing.normalised(sample.frames)
    with torch.inference_mode():
        pictures = checkpoint.model.encode_image(pixels)
        memory, video = checkpoint.model.pool(checkpoint.model.encode_frames(pixels.unsqueeze(0)))
    torch.testing.assert_close(found.video, video)
    torch.testing.assert_close(found.video_memory.tokens, memory.tokens)
    torch.testing.assert_close(found.first_frame, pictures[:1])
    torch.testing.assert_close(found.mean_of_frames, F.normalize(pictures.mean(dim=0, keepdim=True), dim=-1))
    assert not torch.allclose(found.video, found.first_frame, atol=1e-3)
    assert not torch.allclose(found.mean_of_frames, found.first_frame, atol=1e-3)


def test_clips_of_different_lengths_do_not_touch_each_other(checkpoint):
    samples = [clip(2), clip(6, start=4), clip(1, start=11)]
    together = encode_clips(checkpoint, [samples[:2], samples[2:]], device=CPU)
    for i, sample in enumerate(samples):
        alone = encode_clips(checkpoint, [[sample]], device=CPU)
        for name, rows in vars(together).items():
            ours, theirs = rows[i : i + 1], getattr(alone, name)
            if isinstance(ours, Memory):
                ours, theirs = real(ours), real(theirs)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_texts_keep_their_order_and_length(checkpoint):
    texts = ["pizza", "a person running very fast over a bridge", "fox", "pizza"]
    found = encode_texts(checkpoint, texts, device=CPU, batch_size=2)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(found[0], found[3])
    for text, row in zip(texts, found):
        torch.testing.assert_close(encode_texts(checkpoint, [text], device=CPU)[0], row, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[2], atol=1e-3)
