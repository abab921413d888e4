"""This package's models with open_clip's interface, for tools that use whatever has it.

    model, transform, tokenizer = as_open_clip(coca_video.load("runs/emoji/image"))
    pictures = model.encode_image(transform(picture).unsqueeze(0))
    texts = model.encode_text(tokenizer(["a fox", "a pizza"]))

clip_benchmark is one such tool. The command line of its version 1.6 knows its own kinds of models alone; this
file, say ours.py, adds one:

    import sys
    import coca_video
    from clip_benchmark import cli, models
    from coca_video.open_clip_interface import as_open_clip

    def load(model_name, pretrained, cache_dir, device):
        model, transform, tokenizer = as_open_clip(coca_video.load(pretrained))
        return model.to(device), transform, tokenizer

    if __name__ == "__main__":
        models.TYPE2FUNC["coca_video"] = load
        models.MODEL_TYPES.append("coca_video")
        sys.exit(cli.main())

It is then called as the tool itself is; `--output` is needed, as its default has the run's path in it. That
version also needs requests, which it does not ask for, and its classification fails with NumPy 2.4 or later.

    python ours.py eval --model_type coca_video --model coca --pretrained runs/emoji/image --no_amp \
        --dataset cifar10 --output "{dataset}_{task}.json"
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from coca_video.checkpoint import Checkpoint
from coca_video.data.pictures import as_rgb
from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.models.coca import CoCa


@dataclass(frozen=True)
class PictureTransform:
    """PIL picture of any mode and size -> normalised 'c h w' of the model's size."""

    preprocessing: Preprocessing
    size: int  # pixels

    def __call__(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(as_rgb(picture)))
        frames = rearrange(pixels, "h w c -> 1 c h w").contiguous()
        return self.preprocessing.normalised(self.preprocessing.resized(frames, size=self.size))[0]


@dataclass(frozen=True)
class TextTokenizer:
    """Texts -> int64 'b l', padded to the context as open_clip does it."""

    tokenizer: Tokenizer
    context_length: int

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """context_length: tokens, at most the model's. Raises ValueError for more."""
        length = self.context_length if context_length is None else context_length
        if length > self.context_length:
            raise ValueError(f"context_length must be at most {self.context_length}, got {length}")
        ids, _ = self.tokenizer.encode_batch([texts] if isinstance(texts, str) else texts, max_length=length)
        return F.pad(ids, (0, length - ids.shape[1]), value=self.tokenizer.pad)


class OpenClipInterface(nn.Module):
    """A CoCa model by the names that open_clip's models have.

    Embeddings are of unit length with and without `normalize`: a clip's is a mean of unit vectors, and no
    other length would mean anything. The model, its weights included, is `coca` itself, no copy.
    pad: the id of padding; a real token of that id does not count, as with the tokenizer's own mask.
    """

    def __init__(self, coca: CoCa, *, pad: int):
        super().__init__()
        self.coca, self.pad = coca, pad
        self.context_length = coca.config.text.context_length
        size = coca.config.image.image_size
        self.visual = SimpleNamespace(image_size=(size, size))  # for those who ask for it

    @property
    def logit_scale(self) -> Tensor:
        """Scalar: the logarithm of 1 / temperature."""
        return self.coca.heads.log_scale

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """'b c h w', normalised pixels -> 'b e'."""
        return self.coca.encode_image(image)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """ids int 'b l' -> 'b e'."""
        return self.coca.encode_text(text, text != self.pad)

    def forward(
        self, image: Tensor | None = None, text: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Embeddings 'b e' of either, None where nothing was given, and the scale itself."""
        image_features = None if image is None else self.encode_image(image)
        text_features = None if text is None else self.encode_text(text)
        return image_features, text_features, self.logit_scale.exp()


def as_open_clip(checkpoint: Checkpoint) -> tuple[OpenClipInterface, PictureTransform, TextTokenizer]:
    """The model in eval mode, the transform of pictures and the tokenizer that belong together."""
    config = checkpoint.model.config
    model = OpenClipInterface(checkpoint.model, pad=checkpoint.tokenizer.pad).eval()
    transform = PictureTransform(checkpoint.preprocessing, config.image.image_size)
    return model, transform, TextTokenizer(checkpoint.tokenizer, config.text.context_length)
