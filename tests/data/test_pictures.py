import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from coca_video.data.pictures import is_picture, read_picture
from coca_video.data.shards import PictureRecord, write_shards
from coca_video.data.sources import Pictures
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(source) -> np.ndarray:
    """'h w c' of what is read, which is checked to be uint8 RGB '1 c h w'."""
    picture = read_picture(source)
    assert picture.dtype == torch.uint8 and picture.shape[:2] == (1, 3) and picture.is_contiguous()
    return picture[0].permute(1, 2, 0).numpy()


def test_rgb_as_stored_from_a_file_and_from_bytes(tmp_path):
    content = encoded(Image.fromarray(PIXELS))
    (tmp_path / "a.png").write_bytes(content)
    assert (pixels_of(content) == PIXELS).all() and (pixels_of(tmp_path / "a.png") == PIXELS).all()


def test_grey_and_palette():
    grey = PIXELS[..., 0]
    assert (pixels_of(encoded(Image.fromarray(grey))) == grey[..., None]).all()
    palette = Image.fromarray(PIXELS).quantize(8)
    assert (pixels_of(encoded(palette)) == np.asarray(palette.convert("RGB"))).all()
    bits = Image.fromarray(grey).convert("1")
    assert (pixels_of(encoded(bits)) == np.asarray(bits.convert("RGB"))).all()


def test_sixteen_bits_are_scaled():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert pixels_of(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk_jpeg():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels_of(encoded(red, "JPEG")).astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode):
    if mode == "P":
        picture = Image.new("P", (2, 1), 0)
        picture.putpalette([10, 20, 30, 0, 0, 0])
        picture.putpixel((1, 0), 1)
        content = encoded(picture, transparency=0)
    else:
        picture = Image.new(mode, (2, 1), (0,) * (len(mode) - 1) + (255,))
        picture.putpixel((0, 0), (0,) * len(mode))
        content = encoded(picture)
    assert pixels_of(content).tolist() == [[[255] * 3, [0] * 3]]


def test_half_transparent_is_mixed_with_white():
    assert np.abs(pixels_of(encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51)))).astype(int) - 204).max() <= 1


def test_a_file_is_what_its_first_bytes_say(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("RGB", (8, 8), "red"), "JPEG"))
    assert np.abs(pixels_of(path).astype(int) - (255, 0, 0)).max() < 6


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (pixels_of(content) == (255, 0, 0)).all()


def test_exif_does_not_turn_a_picture():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    assert pixels_of(encoded(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).shape == (4, 8, 3)


def huge_png() -> bytes:
    """A header that promises 60,000 x 60,000 pixels, and hardly any of them."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


WHOLE = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))


@pytest.mark.parametrize(
    "content", [WHOLE[: len(WHOLE) // 2], WHOLE[:20], b"no picture\n", b"", huge_png()], ids=range(5)
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for source, options, name in ((path, {}, str(path)), (content, {"name": "shard: one"}, "shard: one")):
        with pytest.raises(InputError) as error:
            read_picture(source, **options)
        message = str(error.value)
        assert message.startswith(f"{name}: is not a readable picture (") and "\n" not in message


def test_too_large_says_so_and_a_missing_file_too(tmp_path):
    with pytest.raises(InputError, match="pixels"):
        read_picture(huge_png(), name="huge")
    with pytest.raises(InputError, match="none.png: no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(InputError, match="is not a readable picture"):
        read_picture(tmp_path)


def test_endings(tmp_path):
    assert is_picture(tmp_path / "a.b.JPEG") and not is_picture(tmp_path / "a.jpg.mp4")


def test_pictures_of_shards_whatever_their_format(tmp_path):
    red = Image.new("RGB", (8, 8), "red")
    contents = {"a": encoded(red), "b": encoded(red, "JPEG"), "c": b"none"}
    records = [PictureRecord(key, content, "red", {}) for key, content in contents.items()]
    write_shards(tmp_path, records, max_per_shard=9, prefix="x")
    source = Pictures(tmp_path, frame_size=8, preprocessing=Preprocessing())
    assert source.frames(0, None)[0, :, 4, 4].tolist() == [255, 0, 0]
    assert (source.frames(0, None).int() - source.frames(1, None)).abs().max() < 6
    with pytest.raises(InputError, match=f"{tmp_path}/x-000000.tar: sample c: is not a readable picture"):
        source.frames(2, None)
