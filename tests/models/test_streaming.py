from collections.abc import Iterator

import pytest
import torch
from tiny import coca, name, noise, shaken
from torch import Tensor

from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.coca import CoCa
from coca_video.models.poolers import PoolerStyle
from coca_video.models.streaming import VideoStream

FRAMES = (2, 6, 3, 16, 16)  # 'b t c h w'
LENGTHS = [4, 6]
FRAME_MASK = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(1)
CASES = [
    {"adaptor": a, "style": s, "queries": 5} for a in (Adaptor.attentional, Adaptor.mean) for s in PoolerStyle
]
CASES += [{"adaptor": Adaptor.mean, "style": PoolerStyle.cascade, "queries": 0}]
CASES += [{"adaptor": Adaptor.attentional, "style": s, "queries": 5, "positions": 3} for s in PoolerStyle]

every_case = pytest.mark.parametrize("case", CASES, ids=name)


def build(case: dict) -> CoCa:
    temporal = TemporalConfig(case["adaptor"], num_positions=case.get("positions", 0))
    model = coca(temporal=temporal, poolers=case["style"], num_caption_queries=case["queries"])
    shaken(model.temporal)
    return model


def stream_of(model: CoCa, **settings) -> VideoStream:
    return VideoStream(model, batch_size=2, total_frames=LENGTHS, **settings)


def check_is_batch(stream: VideoStream, frames: Tensor, mask: Tensor | None) -> None:
    """As `CoCa.pool` has it for all frames, or for the first of videos of LENGTHS."""
    memory, embedding = stream.pooled()
    with torch.no_grad():
        expected = stream.model.pool(stream.model.encode_frames(frames, mask), mask)
    torch.testing.assert_close(memory.tokens, expected[0].tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(embedding, expected[1], atol=1e-5, rtol=0)
    assert memory.mask is None and not embedding.requires_grad


@every_case
@pytest.mark.parametrize("chunks", [(1,) * 6, (3, 1, 2), (6,)], ids=str)
def test_frames_that_come_in_parts_are_pooled_as_all_at_once(case, chunks):
    frames, stream = noise(*FRAMES).detach(), stream_of(build(case))
    for part, mask in zip(frames.split(chunks, dim=1), FRAME_MASK.split(chunks, dim=1)):
        stream.add(part, mask)
    assert stream.num_frames.tolist() == LENGTHS
    check_is_batch(stream, frames, FRAME_MASK)


@pytest.mark.parametrize("case", [case for case in CASES if "positions" not in case], ids=name)
def test_frames_may_follow_what_was_pooled(case):
    """And no mask means that all are real."""
    model, frames = build(case), noise(*FRAMES).detach()
    stream = VideoStream(model, batch_size=2)
    stream.add(frames[:, :2])
    check_is_batch(stream, frames[:, :2], None)
    stream.add_tokens(model.encode_frames(frames[:, 2:], FRAME_MASK[:, 2:]), FRAME_MASK[:, 2:])
    check_is_batch(stream, frames, FRAME_MASK)


@every_case
@pytest.mark.parametrize("first, second", [(0, 2), (2, 0)])
def test_halves_streamed_apart_merge_into_the_whole(case, first, second):
    """In either order, and frames may follow."""
    model, frames = build(case), noise(*FRAMES).detach()
    ends = {0: 2, 2: 5}
    streams = {}
    for begin, end in ends.items():
        streams[begin] = stream_of(model, first_frame=begin)
        streams[begin].add(frames[:, begin:end], FRAME_MASK[:, begin:end])
    merged = streams[first]
    merged.merge(streams[second])
    merged.add(frames[:, 5:], FRAME_MASK[:, 5:])
    assert merged.num_frames.tolist() == LENGTHS
    check_is_batch(merged, frames, FRAME_MASK)


def test_an_empty_stream_merges_as_nothing():
    frames, stream = noise(1, 2, 3, 16, 16).detach(), VideoStream(coca())
    filled = VideoStream(stream.model)
    filled.add(frames)
    stream.merge(filled)
    stream.merge(VideoStream(stream.model))
    check_is_batch(stream, frames, None)


@pytest.mark.parametrize("num_positions", [0, 3])
def test_a_stream_of_one_frame_is_a_picture(num_positions):
    model = build(
        {"adaptor": Adaptor.attentional, "style": PoolerStyle.cascade, "queries": 5}
        | {"positions": num_positions}
    )
    pixels = noise(2, 3, 16, 16)
    stream = VideoStream(model, batch_size=2, total_frames=1)
    stream.add(pixels.unsqueeze(1))
    torch.testing.assert_close(stream.pooled()[1], model.encode_image(pixels), atol=1e-5, rtol=0)


def tensors(value: object) -> Iterator[Tensor]:
    """All that an object holds, but for the model."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from tensors(each)
    elif hasattr(value, "__dict__") and not isinstance(value, CoCa | type):
        yield from tensors(list(vars(value).values()))


@pytest.mark.parametrize("case", [case for case in CASES if "positions" not in case], ids=name)
def test_the_state_does_not_grow(case):
    stream, sizes = VideoStream(build(case)), []
    for num_frames in (2, 198):
        stream.add_tokens(noise(1, num_frames, 4, 16))
        sizes.append(sum(x.untyped_storage().nbytes() for x in tensors(stream)))
    assert stream.num_frames.item() == 200
    assert sizes[0] == sizes[1] > 0


@pytest.mark.parametrize(
    "adaptor, changes, message",
    [
        (Adaptor.joint, {}, "adaptors attentional and mean can be streamed, got temporal.adaptor joint"),
        (Adaptor.factorised, {}, "attentional and mean can be streamed, got temporal.adaptor factorised"),
        (Adaptor.attentional, {"num_caption_queries": 0}, "num_caption_queries must be at least 1 .* got 0"),
    ],
)
def test_models_that_need_all_frames_at_once_are_refused(adaptor, changes, message):
    with pytest.raises(ValueError, match=message):
        VideoStream(coca(temporal=TemporalConfig(adaptor), **changes))


def test_time_positions_need_the_total():
    model = coca(temporal=TemporalConfig(num_positions=3))
    with pytest.raises(ValueError, match="total_frames in advance, got num_positions 3 and no total_frames"):
        VideoStream(model)
    with pytest.raises(ValueError, match=r"total_frames must be one number or 2, got \[4, 6, 5\]"):
        VideoStream(model, batch_size=2, total_frames=[4, 6, 5])
    stream = VideoStream(model, total_frames=3)
    stream.add_tokens(noise(1, 2, 4, 16))
    with pytest.raises(ValueError, match="total_frames 3 has no more than these, got 4"):
        stream.add_tokens(noise(1, 2, 4, 16))


def test_what_does_not_fit_is_refused():
    model = coca()
    stream = VideoStream(model, batch_size=2)
    with pytest.raises(ValueError, match="must have seen a frame to be pooled, got none"):
        stream.pooled()
    with pytest.raises(ValueError, match="batch_size 2 takes as many videos, got 3"):
        stream.add(noise(3, 1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"frame_mask must be bool of shape \(2, 6\), got .*int64 \(2, 6\)"):
        stream.add(noise(*FRAMES), FRAME_MASK.long())
    for other in (VideoStream(model), VideoStream(coca(), batch_size=2)):
        with pytest.raises(ValueError, match="streams must be of one model and of as many videos"):
            stream.merge(other)
