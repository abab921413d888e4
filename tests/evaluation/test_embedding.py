import pytest
import torch
import torch.nn.functional as F
from videos import coloured_frames

from coca_video.checkpoint import Checkpoint, load_checkpoint
from coca_video.data.samples import Sample
from coca_video.data.sampling import Sampling
from coca_video.data.sources import Clips, Pictures, Source
from coca_video.evaluation.embedding import ClipFeatures, cached_source, encode_clips, encode_texts
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


def encoded(checkpoint: Checkpoint, *batches: list[Sample]) -> ClipFeatures:
    """The features of several batches as one."""
    parts = [encode_clips(checkpoint, [sample.content for sample in batch], device=CPU) for batch in batches]
    columns = zip(*(vars(part).values() for part in parts))
    return ClipFeatures(
        *(Memory.cat(column) if isinstance(column[0], Memory) else torch.cat(column) for column in columns)
    )


def real(memory: Memory) -> torch.Tensor:
    """One clip's memory without its padding: 'q d'."""
    return memory.tokens[0] if memory.mask is None else memory.tokens[0][memory.mask[0]]


def test_a_frame_alone_is_every_view(checkpoint):
    found = encoded(checkpoint, [clip(1), clip(1, start=7)])
    torch.testing.assert_close(found.first_frame, found.video)
    torch.testing.assert_close(found.mean_of_frames, found.video)
    torch.testing.assert_close(found.first_frame_memory.tokens, found.video_memory.tokens)
    assert not torch.allclose(found.video[0], found.video[1], atol=1e-3)


def test_views_are_what_they_say(checkpoint):
    sample = clip(5, start=3)
    found = encoded(checkpoint, [sample])
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
    together = encoded(checkpoint, samples[:2], samples[2:])
    for i, sample in enumerate(samples):
        alone = encoded(checkpoint, [sample])
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


@pytest.mark.parametrize("num_frames", [1, 4])
def test_cached_tokens_give_the_same_bits_without_the_encoder(image_run, emoji_root, tmp_path, num_frames):
    """The second time its weights are no numbers: whoever encoded anything would get none."""
    for adaptor in (Adaptor.attentional, Adaptor.factorised, Adaptor.mean):
        loaded = load_checkpoint(image_run, temporal=TemporalConfig(adaptor))
        clips = Clips(
            emoji_root / "clips" / "pack3.jsonl",
            frame_size=16,
            preprocessing=loaded.preprocessing,
            num_frames=num_frames,
            sampling=Sampling.uniform,
        )
        plain = encoded(loaded, *batches(clips))
        settings = {"batch_size": 4, "num_workers": 0}
        cached = cached_source(loaded.model, clips, str(tmp_path), **settings)
        for weight in loaded.model.image_encoder.parameters():
            weight.data.fill_(torch.nan)
        found = encoded(loaded, *batches(cached))
        for name, expected in vars(plain).items():
            ours = getattr(found, name)
            pairs = ((ours.tokens, expected.tokens),) if isinstance(ours, Memory) else ((ours, expected),)
            assert all(torch.equal(a, b) for a, b in pairs), name


def batches(clips: Source) -> list[list[Sample]]:
    samples = [clips.sample(i, None) for i in range(len(clips))]
    return [samples[:4], samples[4:]]


def test_merged_patches_have_a_cache_of_their_own(image_run, emoji_root, tmp_path):
    loaded = load_checkpoint(image_run)
    shards, preprocessing = emoji_root / "pictures", loaded.preprocessing
    pictures = Pictures(shards, frame_size=16, preprocessing=preprocessing)
    for merged, num_tokens in ((0, 4), (1, 3)):
        loaded.model.image_encoder.merged_per_block = merged
        found = cached_source(loaded.model, pictures, str(tmp_path), batch_size=3, num_workers=0)
        assert found.sample(0, None).tokens.shape == (1, num_tokens, 16)
