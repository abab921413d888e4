import pytest
import torch
import torch.nn.functional as F
from videos import coloured_frames

from coca_video.checkpoint import load_checkpoint
from coca_video.data.samples import Sample
from coca_video.evaluation.embedding import encode_clips, encode_texts

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[None, 4], ids=["without time", "with time"])
def checkpoint(request, image_run):
    loaded = load_checkpoint(image_run, num_time_positions=request.param)
    if request.param:
        torch.nn.init.normal_(loaded.model.time_positions.table)
    return loaded


def clip(num_frames: int, *, start: int = 0) -> Sample:
    frames = torch.from_numpy(coloured_frames(start + num_frames, height=16, width=16)[start:])
    return Sample(frames.permute(0, 3, 1, 2).contiguous(), "a clip", f"clip {start}")


def test_a_frame_alone_is_every_view(checkpoint):
    found = encode_clips(checkpoint, [[clip(1), clip(1, start=7)]], device=CPU)
    torch.testing.assert_close(found.first_frame, found.video)
    torch.testing.assert_close(found.mean_of_frames, found.video)
    torch.testing.assert_close(found.first_frame_memory, found.video_memory)
    assert not torch.allclose(found.video[0], found.video[1], atol=1e-3)


def test_views_are_what_they_say(checkpoint):
    sample = clip(5, start=3)
    found = encode_clips(checkpoint, [[sample]], device=CPU)
    pixels = checkpoint.preprocessing.normalised(sample.frames)
    with torch.inference_mode():
        pictures = checkpoint.model.encode_image(pixels)
        memory, video = checkpoint.model.pool(checkpoint.model.encode_frames(pixels.unsqueeze(0)))
    torch.testing.assert_close(found.video, video)
    torch.testing.assert_close(found.video_memory, memory)
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
            torch.testing.assert_close(rows[i : i + 1], getattr(alone, name), atol=1e-5, rtol=1e-4)


def test_texts_keep_their_order_and_length(checkpoint):
    texts = ["pizza", "a person running very fast over a bridge", "fox", "pizza"]
    found = encode_texts(checkpoint, texts, device=CPU, batch_size=2)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(found[0], found[3])
    for text, row in zip(texts, found):
        torch.testing.assert_close(encode_texts(checkpoint, [text], device=CPU)[0], row, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[2], atol=1e-3)
