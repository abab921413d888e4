import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import image_config, shaken
from torch import Tensor
from torchvision.io import encode_png
from videos import coloured_frames, save_video

from coca_video.data.bad_samples import Unreadable
from coca_video.data.manifest import ClipRecord, write_manifest
from coca_video.data.samples import collate
from coca_video.data.sampling import Sampling
from coca_video.data.shards import PictureRecord, write_shards
from coca_video.data.sources import Kind, Source, SourceConfig, open_source
from coca_video.data.token_cache import TokenCache, encode_source, encoder_hash
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.models.image_encoder import ImageEncoder
from coca_video.tasks.picture_pairs import PicturePairs
from coca_video.tasks.task import asking

NUM_CLIPS, NUM_FRAMES = 5, 3
ORIGIN = {"video": "a.mp4", "frame_size": 16}


@pytest.fixture
def clips(tmp_path) -> Source:
    """Five clips of two to ten frames."""
    videos = [coloured_frames(2 + 2 * i) for i in range(NUM_CLIPS)]
    paths = [save_video(tmp_path / f"{i}.mp4", frames, fps=10) for i, frames in enumerate(videos)]
    write_manifest(
        tmp_path / "clips.jsonl", [ClipRecord(path, path.stem, {"of": "a test"}) for path in paths]
    )
    return open_clips(tmp_path)


def open_clips(folder: Path, *, frame_size: int = 16, reduced_decoding: bool = False, **changes) -> Source:
    settings = {"num_frames": NUM_FRAMES, "sampling": Sampling.uniform} | changes
    config = SourceConfig(Kind.clips, str(folder / "clips.jsonl"), **settings)
    shared = {"frame_size": frame_size, "preprocessing": Preprocessing()}
    return open_source(config, **shared, reduced_decoding=reduced_decoding)


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return shaken(ImageEncoder(image_config(dropout=0.5)))


@pytest.fixture
def cache(tmp_path, encoder) -> TokenCache:
    return TokenCache(tmp_path / "cache", encoder=encoder_hash(encoder, {}))


def encode(source: Source, cache: TokenCache, encoder: ImageEncoder, *, num_workers: int = 0) -> Source:
    return encode_source(source, cache, encoder, batch_size=2, num_workers=num_workers)


def tokens(source: Source) -> list[Tensor]:
    return [source.sample(i, None).tokens for i in range(len(source))]


def encoded_plainly(source: Source, encoder: ImageEncoder) -> list[Tensor]:
    """Each sample on its own."""
    frames = [source.sample(i, None).frames for i in range(len(source))]
    with torch.no_grad():
        return [encoder.eval()(source.preprocessing.normalised(clip)) for clip in frames]


def spoil(path: Path) -> None:
    """Nothing can be decoded any more; size and time are as before."""
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_put_comes_back_exactly(tmp_path, dtype):
    cache = TokenCache(tmp_path, encoder="e")
    stored = torch.randn(6, 4, 5).to(dtype)[1:4].transpose(1, 2)  # a view: of others' memory, not contiguous
    assert ORIGIN not in cache
    cache.put(ORIGIN, stored)
    assert ORIGIN in cache and dict(reversed(ORIGIN.items())) in cache
    found = cache.get(ORIGIN)
    assert found.dtype == dtype and torch.equal(found, stored)
    assert ORIGIN | {"frame_size": 17} not in cache and ORIGIN not in TokenCache(tmp_path, encoder="f")


def test_an_interrupted_write_leaves_no_entry(tmp_path):
    cache = TokenCache(tmp_path, encoder="e")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes, as if the disk were full
    try:
        with pytest.raises(OSError):
            cache.put(ORIGIN, torch.ones(10, 10, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ORIGIN not in cache
    cache.put(ORIGIN, torch.ones(10, 10, 10))
    assert torch.equal(cache.get(ORIGIN), torch.ones(10, 10, 10))


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"no"])
def test_a_damaged_entry_names_its_file(tmp_path, damage):
    cache = TokenCache(tmp_path, encoder="e")
    cache.put(ORIGIN, torch.zeros(2, 3, 4))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="cannot be read as cached tokens .*remove it") as caught:
        cache.get(ORIGIN)
    assert str(caught.value).startswith(str(path))


def test_an_encoders_hash_is_of_its_weights_and_settings(encoder):
    first = encoder_hash(encoder, {"num_heads": 2})
    assert encoder_hash(encoder, {"num_heads": 2}) == first != encoder_hash(encoder, {"num_heads": 4})
    hashes = {first}
    for name, weight in encoder.state_dict().items():
        before = weight.flatten()[0].item()
        weight.view(-1)[0] = before + 1
        hashes.add(encoder_hash(encoder, {"num_heads": 2}))
        weight.view(-1)[0] = before
    assert len(hashes) == 1 + len(encoder.state_dict()) and encoder_hash(encoder, {"num_heads": 2}) == first
    half = ImageEncoder(image_config()).bfloat16()
    assert encoder_hash(half, {}) != encoder_hash(half.float(), {})


@pytest.mark.parametrize("num_workers", [0, 1])
def test_clips_are_read_as_tokens_and_decoded_once(clips, cache, encoder, num_workers):
    expected = encoded_plainly(clips, encoder)
    encoder.train()
    found = encode(clips, cache, encoder, num_workers=num_workers)
    for i, (ours, theirs) in enumerate(zip(tokens(found), expected)):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        sample, plain = found.sample(i, None), clips.sample(i, None)
        assert (sample.text, sample.key, sample.labels) == (plain.text, plain.key, plain.labels)
        assert sample.frames is None and not ours.requires_grad
    for record in clips.records:
        spoil(record.path)
    with pytest.raises(InputError):
        clips.sample(0, None)
    again = encode(clips, cache, encoder, num_workers=num_workers)
    assert all(torch.equal(a, b) for a, b in zip(tokens(again), tokens(found)))


def test_an_interrupted_fill_resumes(clips, cache, encoder):
    """A video that cannot be read ends it; what was encoded by then is not encoded again."""
    content = clips.records[3].path.read_bytes()
    spoil(clips.records[3].path)
    with pytest.raises(InputError, match="3.mp4"):
        encode(clips, cache, encoder)
    done = [i for i in range(NUM_CLIPS) if clips.origin(i) in cache]
    assert 2 not in done and 3 not in done  # of one batch
    for i in done:
        spoil(clips.records[i].path)
    state = clips.records[3].path.stat()
    clips.records[3].path.write_bytes(content)
    os.utime(clips.records[3].path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert len(tokens(encode(clips, cache, encoder))) == NUM_CLIPS


def test_a_batch_is_encoded_whole_or_not_at_all(clips, cache, encoder):
    """So that the tokens do not depend on what was there, not even in their roundings."""
    first = tokens(encode(clips, cache, encoder))
    for path in sorted(cache.folder.rglob("*.safetensors"))[::2]:
        path.unlink()
    assert all(torch.equal(a, b) for a, b in zip(tokens(encode(clips, cache, encoder)), first))


@pytest.mark.parametrize(
    "change",
    [
        {"frame_size": 24},
        {"num_frames": 4},
        {"sampling": Sampling.dense},
        {"reduced_decoding": True},
    ],
)
def test_other_frames_are_other_entries(clips, cache, encoder, change, tmp_path):
    encode(clips, cache, encoder)
    other = open_clips(tmp_path, **change)
    assert all(clips.origin(i) in cache and other.origin(i) not in cache for i in range(NUM_CLIPS))


def test_a_changed_video_is_encoded_anew(clips, cache, encoder):
    encode(clips, cache, encoder)
    path = clips.records[1].path
    save_video(path, coloured_frames(4)[::-1], fps=10)
    assert [clips.origin(i) in cache for i in range(NUM_CLIPS)] == [True, False, True, True, True]
    found = tokens(encode(clips, cache, encoder))[1]
    torch.testing.assert_close(found, encoded_plainly(clips, encoder)[1], atol=1e-5, rtol=1e-5)


def test_pictures_are_known_by_their_content(tmp_path, cache, encoder):
    """The same picture in other shards, under another name and text, is not encoded again."""
    pngs = [bytes(encode_png(torch.full((3, 20, 20), 40 * i, dtype=torch.uint8)).tolist()) for i in range(3)]
    for folder, order in (("one", [0, 1, 2]), ("two", [2, 0, 1])):
        records = [PictureRecord(f"{folder}{i}", pngs[i], f"{folder} {i}", {}) for i in order]
        write_shards(tmp_path / folder, records, max_per_shard=9, prefix="p")
    one, two = (
        open_source(
            SourceConfig(Kind.pictures, str(tmp_path / folder)), frame_size=16, preprocessing=Preprocessing()
        )
        for folder in ("one", "two")
    )
    found = encode(one, cache, encoder)
    for ours, theirs in zip(tokens(found), encoded_plainly(one, encoder)):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert all(two.origin(i) in cache for i in range(3))
    sample = encode(two, cache, encoder).sample(0, None)
    assert (
        sample.text == "two 2"
        and sample.key.endswith("p-000000.tar: sample two2")
        and torch.equal(sample.tokens, tokens(found)[2])
    )


def test_a_batch_of_tokens(clips, cache, encoder):
    """Pictures and clips side by side: padding frames have tokens of zero."""
    cached = encode(clips, cache, encoder)
    samples = [cached.sample(0, None), cached.sample(1, None)]
    samples[1].tokens = samples[1].tokens[:1]
    batch = collate(samples, Tokenizer.train(["0", "1"], vocab_size=260), max_length=5)
    assert len(batch) == 2 and batch.frames is None and batch.frame_mask.sum(dim=1).tolist() == [3, 1]
    assert batch.tokens.shape == (2, NUM_FRAMES, 4, 16) and (batch.tokens[1, 1:] == 0).all()
    assert torch.equal(batch.tokens[0], samples[0].tokens)
    assert torch.equal(batch.tokens[1, :1], samples[1].tokens)


def test_a_filler_is_of_tokens_too(clips, cache, encoder):
    filler = encode(clips, cache, encoder).filler()
    assert filler.tokens.shape == (1, 4, 16) and not filler.tokens.any()


def test_pairs_are_read_as_tokens(tmp_path, cache, encoder):
    """Both pictures' behind one another; a filler of the task has as many."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.new("RGB", (16, 16), (80 * i, 0, 0)).save(path)
    yes = {"answer": "yes"}
    records = [ClipRecord(a, "a", yes, second_path=b) for a, b in zip(paths, paths[1:])]
    write_manifest(tmp_path / "clips.jsonl", records)
    source = open_clips(tmp_path)
    source.captions = asking(PicturePairs(classes=["no", "yes"]), records)
    cached = encode(source, cache, encoder)
    found = tokens(cached)
    for ours, theirs in zip(found, encoded_plainly(source, encoder)):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(found[0][1], found[1][0]) and found[0].shape == (2, 4, 16)
    sample, filler = cached.sample(0, None), cached.filler()
    assert (sample.prompt, sample.target.item()) == ("a", 1)
    assert filler.tokens.shape == (2, 4, 16) and not filler.tokens.any() and filler.target == 0


def test_tokens_that_are_lost_are_a_bad_sample(clips, cache, encoder):
    cached = encode(clips, cache, encoder)
    for path in cache.folder.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(Unreadable, match="cannot be read as cached tokens") as caught:
        cached.sample(2, None)
    assert caught.value.kind == "tokens"
    assert (cached.sizes, cached.key(2), list(cached.texts())) == (
        clips.sizes,
        clips.key(2),
        list(clips.texts()),
    )


def test_several_may_fill_it_at_once(clips, cache, encoder):
    encoder.eval()
    with ThreadPoolExecutor() as pool:
        filled = list(pool.map(lambda _: encode(clips, cache, encoder), range(3)))
    expected = encoded_plainly(clips, encoder)
    for found in filled:
        for ours, theirs in zip(tokens(found), expected):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert len(list(cache.folder.rglob("*.*"))) == NUM_CLIPS  # and nothing half-written beside them
