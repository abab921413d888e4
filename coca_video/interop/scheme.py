"""How open_clip names CoCa's tensors and how this package does: one list of rules, read in both directions.

The scheme is that of open_clip 3.3's `coca_model.CoCa`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from coca_video.models.coca import CoCaConfig


class Form(NamedTuple):
    """What is done to a tensor of theirs to get ours, and how it is undone."""

    split: Callable[[Tensor], tuple[Tensor, ...]]
    join: Callable[..., Tensor]


SAME = Form(lambda x: (x,), lambda x: x)
TRANSPOSED = Form(lambda x: (x.T,), lambda x: x.T)
THIRDS = Form(lambda x: x.chunk(3), lambda *parts: torch.cat(parts))
FIRST_ROW = Form(lambda x: (x[0], x[1:]), lambda first, rest: torch.cat([first.unsqueeze(0), rest]))
LAST_ROW = Form(lambda x: (x[:-1], x[-1]), lambda rest, last: torch.cat([rest, last.unsqueeze(0)]))


class Rule(NamedTuple):
    theirs: str
    ours: tuple[str, ...]  # in the order in which the form splits theirs
    form: Form = SAME


def from_open_clip(tensors: dict[str, Tensor], config: CoCaConfig) -> dict[str, Tensor]:
    """Their tensors under our names. Raises KeyError for a missing one; others are left out."""
    ours = {}
    for rule in rules(config):
        ours |= zip(rule.ours, rule.form.split(tensors[rule.theirs]), strict=True)
    return ours


def to_open_clip(weights: dict[str, Tensor], config: CoCaConfig) -> dict[str, Tensor]:
    """Our tensors under their names, as `from_open_clip` had them."""
    return {rule.theirs: rule.form.join(*(weights[name] for name in rule.ours)) for rule in rules(config)}


def rules(config: CoCaConfig) -> Iterator[Rule]:
    """One for each tensor of theirs; together they name each tensor of ours once."""
    yield Rule("logit_scale", ("heads.log_scale",))
    yield from _image_rules(config)
    yield from _pooler_rules(same_width=config.image.width == config.text.width)
    yield from _unimodal_rules(config.text.num_unimodal_layers)
    yield from _multimodal_rules(config.text.num_multimodal_layers)


def _image_rules(config: CoCaConfig) -> Iterator[Rule]:
    yield Rule("visual.class_embedding", ("image_encoder.class_token",))
    positions = ("image_encoder.class_position", "image_encoder.positions.table")
    yield Rule("visual.positional_embedding", positions, FIRST_ROW)
    yield Rule("visual.conv1.weight", ("image_encoder.patches.project.weight",))
    yield from _affine("visual.ln_pre", "image_encoder.norm_first")
    for i in range(config.image.num_layers):
        yield from _block(f"visual.transformer.resblocks.{i}", f"image_encoder.blocks.{i}")


def _pooler_rules(*, same_width: bool) -> Iterator[Rule]:
    theirs, ours = "visual.attn_pool", "poolers.caption"
    yield Rule(f"{theirs}.query", (f"{ours}.queries",))
    yield from _affine(f"{theirs}.ln_q", f"{ours}.norm_queries")
    yield from _affine(f"{theirs}.ln_k", f"{ours}.norm_tokens")
    yield from _attention(f"{theirs}.attn", f"{ours}.attention", same_width=same_width)
    yield from _affine("visual.ln_post", f"{ours}.norm_out")
    yield Rule("visual.proj", ("heads.video.weight",), TRANSPOSED)


def _unimodal_rules(num_layers: int) -> Iterator[Rule]:
    yield Rule("text.token_embedding.weight", ("unimodal.tokens.weight",))
    yield Rule("text.positional_embedding", ("unimodal.positions", "unimodal.cls_position"), LAST_ROW)
    yield Rule("text.cls_emb", ("unimodal.cls",))
    for i in range(num_layers):
        yield from _block(f"text.transformer.resblocks.{i}", f"unimodal.blocks.{i}")
    yield from _affine("text.ln_final", "unimodal.norm_cls")
    yield Rule("text.text_projection", ("heads.text.weight",), TRANSPOSED)


def _multimodal_rules(num_layers: int) -> Iterator[Rule]:
    """One layer of theirs is two blocks of ours: one reads the text, one the caption memory."""
    for i in range(num_layers):
        yield from _block(f"text_decoder.resblocks.{i}", f"multimodal.blocks.{2 * i}")
        yield from _cross_block(f"text_decoder.cross_attn.{i}", f"multimodal.blocks.{2 * i + 1}")
    yield from _affine("text_decoder.ln_final", "multimodal.norm")
    yield Rule("text_decoder.text_projection", ("heads.vocabulary.weight",), TRANSPOSED)


def _block(theirs: str, ours: str) -> Iterator[Rule]:
    yield from _affine(f"{theirs}.ln_1", f"{ours}.norm_self")
    yield from _attention(f"{theirs}.attn", f"{ours}.self_attention")
    yield from _mlp(theirs, ours)


def _cross_block(theirs: str, ours: str) -> Iterator[Rule]:
    yield from _affine(f"{theirs}.ln_1", f"{ours}.norm_cross")
    yield from _affine(f"{theirs}.ln_1_kv", f"{ours}.norm_memory")
    yield from _attention(f"{theirs}.attn", f"{ours}.cross_attention")
    yield from _mlp(theirs, ours)


def _mlp(theirs: str, ours: str) -> Iterator[Rule]:
    yield from _affine(f"{theirs}.ln_2", f"{ours}.norm_mlp")
    yield from _affine(f"{theirs}.mlp.c_fc", f"{ours}.mlp.hidden")
    yield from _affine(f"{theirs}.mlp.c_proj", f"{ours}.mlp.out")


def _attention(theirs: str, ours: str, *, same_width: bool = True) -> Iterator[Rule]:
    """torch keeps the three projections in one tensor if keys and values are as wide as queries."""
    parts = ("query", "key", "value")
    if same_width:
        yield Rule(f"{theirs}.in_proj_weight", tuple(f"{ours}.{part}.weight" for part in parts), THIRDS)
    else:
        for part in parts:
            yield Rule(f"{theirs}.{part[0]}_proj_weight", (f"{ours}.{part}.weight",))
    yield Rule(f"{theirs}.in_proj_bias", tuple(f"{ours}.{part}.bias" for part in parts), THIRDS)
    yield from _affine(f"{theirs}.out_proj", f"{ours}.out")


def _affine(theirs: str, ours: str) -> Iterator[Rule]:
    for name in ("weight", "bias"):
        yield Rule(f"{theirs}.{name}", (f"{ours}.{name}",))
