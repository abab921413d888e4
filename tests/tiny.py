"""Models small enough to build in every test, and inputs for them."""

import torch
from torch import Tensor, nn

from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.models.image_encoder import ImageEncoderConfig
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextDecoderConfig

VOCAB_SIZE = 307
CONTEXT_LENGTH = 12

# Every way to pool, as changes of a CoCaConfig.
POOLERS = [
    {"poolers": PoolerStyle.cascade, "num_caption_queries": 5},
    {"poolers": PoolerStyle.cascade, "num_caption_queries": 0},
    {"poolers": PoolerStyle.parallel, "num_caption_queries": 5},
    {"poolers": PoolerStyle.parallel, "num_caption_queries": 0},
    {"poolers": PoolerStyle.shared, "num_caption_queries": 5},
]


def name(changes: dict) -> str:
    """Of a test's case: the values that it sets."""
    return "-".join(str(getattr(value, "value", value)) for value in changes.values())


def image_config(**changes) -> ImageEncoderConfig:
    """Pictures of 16 x 16 pixels, four tokens each."""
    sizes = {"image_size": 16, "patch_size": 8, "width": 16, "num_layers": 2, "num_heads": 2, "mlp_width": 32}
    return ImageEncoderConfig(**(sizes | changes))


def text_config(**changes) -> TextDecoderConfig:
    layers = {"num_unimodal_layers": 2, "num_multimodal_layers": 2}
    sizes = {"context_length": CONTEXT_LENGTH, "width": 24, "num_heads": 3, "mlp_width": 48}
    return TextDecoderConfig(**({"vocab_size": VOCAB_SIZE} | layers | sizes | changes))


def coca_config(**changes) -> CoCaConfig:
    sizes = {"embed_dim": 20, "num_caption_queries": 5, "num_pooler_heads": 3}
    return CoCaConfig(**({"image": image_config(), "text": text_config()} | sizes | changes))


def temporal_config(adaptor: Adaptor, **changes) -> TemporalConfig:
    """Two layers where the adaptor has layers, three time positions where it knows of time."""
    num_positions = 0 if adaptor is Adaptor.mean else 3
    return TemporalConfig(adaptor, **({"num_positions": num_positions, "num_layers": 2} | changes))


def coca(*, seed: int = 0, **changes) -> CoCa:
    torch.manual_seed(seed)
    return CoCa(coca_config(**changes)).eval()


def shaken(module: nn.Module) -> nn.Module:
    """Every weight away from where it starts, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that ask for a gradient."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def texts(*lengths: int, pad_to: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids 'b l' with their mask; the same rows whatever the padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), pad_to or max(lengths), dtype=torch.long)
    for row, length in zip(ids, lengths):
        row[:length] = torch.randint(1, VOCAB_SIZE, (length,), generator=generator)
    return ids, ids != 0
