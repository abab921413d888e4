"""open_clip's own CoCa with random weights, to be compared with ours."""

import math

import open_clip
import torch
from open_clip.coca_model import CoCa as OpenClipCoCa
from torch import Tensor, nn

VOCAB_SIZE = 300


def tiny(
    *,
    width: int = 128,
    image_width: int = 64,
    context_length: int = 12,
    image_size: int = 32,
    vocab_size: int = VOCAB_SIZE,
) -> OpenClipCoCa:
    """Two layers in each tower; heads as by open_clip's defaults, 64 wide and 8 in the pooler."""
    text = {
        "context_length": context_length,
        "vocab_size": vocab_size,
        "width": width,
        "heads": width // 64,
        "layers": 2,
    }
    model = OpenClipCoCa(
        embed_dim=width,
        multimodal_cfg={**text, "layers": 1},
        text_cfg={**text, "embed_cls": True, "output_tokens": True},
        vision_cfg={
            "image_size": image_size,
            "patch_size": 8,
            "width": image_width,
            "layers": 2,
            "attentional_pool": True,
            "attn_pooler_queries": 7,
            "attn_pooler_heads": 8,
            "output_tokens": True,
        },
    )
    return randomised(model)


def full_size(name: str) -> OpenClipCoCa:
    return randomised(open_clip.create_model(name))


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter random, so that no zero bias, unit norm or equal row hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            parameter.data.fill_(math.log(1 / 0.05))
        elif "ln_" in name and name.endswith("weight"):
            parameter.data.copy_(1 + 0.2 * noise)
        elif parameter.ndim < 2:
            parameter.data.copy_(0.1 * noise)
        elif name.endswith("positional_embedding") or name.endswith("token_embedding.weight"):
            parameter.data.copy_(0.5 * noise)
        elif name == "visual.attn_pool.query":
            parameter.data.copy_(noise)
        else:
            parameter.data.copy_(noise * parameter[0].numel() ** -0.5)
    return model.eval()


def texts(*lengths: int, context_length: int, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Random ids padded with 0 to the context, 'b l', and which are real."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, vocab_size, (len(lengths), context_length), generator=generator)
    mask = torch.arange(context_length) < torch.tensor(lengths).unsqueeze(1)
    return ids * mask, mask
