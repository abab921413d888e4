import pytest
import torch
from probing import pictures_part, videos_part, write_coloured
from tiny import coca

from coca_video.data.token_cache import TokenCache
from coca_video.errors import InputError
from coca_video.probes.examples import classes_of
from coca_video.probes.tokens import Features, ReadingConfig, Tokens, encode_part, pooled, read_batches

HERE = ReadingConfig(num_workers=0, frames_at_once=5)


@pytest.fixture
def root(tmp_path):
    return write_coloured(tmp_path)


class Counting(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.num_frames = encoder, 0

    def forward(self, pixels):
        self.num_frames += len(pixels)
        return self.encoder(pixels)


def test_each_item_is_encoded_once(root, tmp_path):
    encoder = Counting(coca().image_encoder)
    cache = TokenCache(tmp_path / "cache", encoder="e")
    encode_part(pictures_part(root, copies=1), cache, encoder, config=HERE)
    assert encoder.num_frames == 36
    encode_part(pictures_part(root, copies=2), cache, encoder, config=HERE)
    assert encoder.num_frames == 36 + 18
    encode_part(pictures_part(root), cache, encoder, config=HERE)
    assert encoder.num_frames == 54


@torch.inference_mode()
def test_tokens_are_those_of_the_frames(root, tmp_path):
    model, cache = coca(), TokenCache(tmp_path / "cache", encoder="e")
    pictures, videos = pictures_part(root), videos_part(root, num_frames=3, num_crops=2)
    parts = [encode_part(part, cache, model.image_encoder, config=HERE)[0] for part in (pictures, videos)]
    tokens = Tokens(parts, cache, classes_of([pictures], label="colour"))
    assert len(tokens) == 18 + 6 * 2
    assert tokens.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [1] * 6 + [2] * 6
    inputs = tokens.read([2, 18 + 3])
    assert inputs.content.shape == (2, 3 * 4, 16) and inputs.labels.tolist() == [0, 1]
    assert inputs.mask.sum(dim=1).tolist() == [4, 12]
    frames = videos.source.preprocessing.normalised(videos.frames(1, [1])[0])
    expected = model.image_encoder(frames).flatten(0, 1)
    torch.testing.assert_close(inputs.content[1], expected, atol=1e-5, rtol=1e-5)
    assert tokens.read([1, 2]).mask is None


@torch.inference_mode()
def test_features(root, tmp_path):
    model, cache = coca(), TokenCache(tmp_path / "cache", encoder="e")
    pictures, videos = pictures_part(root), videos_part(root, num_frames=3)
    parts = [encode_part(part, cache, model.image_encoder, config=HERE)[0] for part in (pictures, videos)]
    tokens = Tokens(parts, cache, classes_of([pictures], label="colour"))
    frames = videos.source.preprocessing.normalised(videos.frames(2, [0])[0])
    embeddings = pooled(tokens, model, Features.embedding, config=HERE)
    torch.testing.assert_close(embeddings.content[20], model.encode_video(frames[None])[0])
    means = pooled(tokens, model, Features.tokens, config=HERE)
    torch.testing.assert_close(means.content[20], model.image_encoder(frames).mean(dim=(0, 1)))
    assert means.read([20, 3]).labels.tolist() == [1, 0]


def test_what_cannot_be_read_is_left_out_and_listed(root, tmp_path):
    broken = root / "test" / "green-1.mp4"
    broken.write_bytes(broken.read_bytes()[:100])
    cache = TokenCache(tmp_path / "cache", encoder="e")
    part, failed = encode_part(videos_part(root), cache, coca().image_encoder, config=HERE)
    assert len(part) == 5 and [each.example.path for each in failed] == [str(broken)]
    assert str(broken) in failed[0].reason
    for path in (root / "test").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="test.jsonl: not one of 6 examples could be read: .*mp4"):
        encode_part(videos_part(root), cache, coca().image_encoder, config=HERE)


def test_workers_read_the_same(root, tmp_path):
    cache = TokenCache(tmp_path / "cache", encoder="e")
    part, _ = encode_part(pictures_part(root), cache, coca().image_encoder, config=HERE)
    tokens = Tokens([part], cache, classes_of([part], label="colour"))
    batches = [[1, 2], [17, 0, 3]]
    here = list(read_batches(tokens, batches, config=HERE))
    there = list(read_batches(tokens, batches, config=ReadingConfig(num_token_workers=1)))
    assert [torch.equal(a.content, b.content) for a, b in zip(here, there)] == [True, True]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_workers": -1}, "must not be negative"),
        ({"frames_at_once": 0}, "must be positive, got 120.0 and 0"),
    ],
)
def test_refused_settings(changes, expected):
    with pytest.raises(ValueError, match=expected):
        ReadingConfig(**changes)
