"""Reading a picture as a video of one frame."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from coca_video.errors import InputError

# Lower-case endings of files. What a file is, its first bytes say: data sets hold JPEGs named png.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def read_picture(source: Path | bytes, *, name: str | None = None) -> Tensor:
    """A file or its content -> uint8 RGB '1 c h w', as stored: not turned by EXIF, as evaluations do it.

    Grey, palette, CMYK and 16-bit pictures become RGB; what is transparent lies on white.
    name: of the picture in messages. Raises InputError for one that cannot be read.
    """
    name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
                pixels = np.array(as_rgb(picture))
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        reason = str(error).partition("<_io")[0].strip().rstrip(":")
        raise InputError(f"{name}: is not a readable picture ({reason})") from error
    # numpy turns the axes in half of torch's time.
    return torch.from_numpy(np.ascontiguousarray(rearrange(pixels, "h w c -> 1 c h w")))


def as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        canvas = Image.new("RGB", picture.size, "white")
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    if picture.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
        picture = Image.fromarray((np.asarray(picture) // 256).clip(0, 255).astype(np.uint8))
    return picture.convert("RGB")
