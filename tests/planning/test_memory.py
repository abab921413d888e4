import pytest
import torch
from planned import LOSSES, batch, saved_bytes, shape_of
from tiny import coca, image_config, temporal_config, text_config

from coca_video.data.samples import Batch
from coca_video.layers.transformer import Block
from coca_video.models.adaptors import Adaptor
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextStyle
from coca_video.planning.flops import StepShape
from coca_video.planning.memory import Kept, activations_by_part, frames_bytes, losses_bytes

TEXT = {"width": 48, "num_heads": 2, "mlp_width": 192, "context_length": 20}
MODELS = [
    {},
    {"poolers": PoolerStyle.parallel},
    {"poolers": PoolerStyle.shared},
    {"num_caption_queries": 0},
    {"num_caption_queries": 100},  # more of them than it takes to leave the memory unprojected
    *(
        {"temporal": temporal_config(adaptor)}
        for adaptor in (Adaptor.factorised, Adaptor.joint, Adaptor.mean)
    ),
    {"text": text_config(**TEXT, style=TextStyle.open_clip)},
]


def larger(**changes):
    """Large enough for what is counted a batch, a text or a weight to be little."""
    image = image_config(image_size=32, patch_size=4, width=64, mlp_width=256, num_layers=3)
    sizes = {"image": image, "text": text_config(**TEXT), "embed_dim": 48}
    heads = {"num_caption_queries": 24, "num_pooler_heads": 2}
    return coca(**(sizes | heads | changes)).train()


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_what_autograd_keeps(changes, bfloat16):
    model = larger(**changes)
    given = batch(image_size=32, num_frames=(3, 2, 3, 3), lengths=(16, 9, 12, 14))
    parts = activations_by_part(model.config, shape_of(given), bfloat16=bfloat16)
    expected = sum(parts.values(), Kept())
    found = saved_bytes(model, given, LOSSES["both"], bfloat16=bfloat16)
    assert expected.whole == pytest.approx(found, rel=0.06)
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = True
    found = saved_bytes(model, given, LOSSES["both"], bfloat16=bfloat16)
    assert expected.inputs == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("case", ["caption", "contrast"])
def test_one_loss_alone(case):
    model, given = larger(), batch(image_size=32, num_frames=(3, 2, 3, 3), lengths=(16, 9, 12, 14))
    how = {"captioning": case == "caption", "contrastive": case == "contrast"}
    parts = activations_by_part(model.config, shape_of(given), bfloat16=False, **how)
    found = saved_bytes(model, given, LOSSES[case], bfloat16=False)
    assert sum(parts.values(), Kept()).whole == pytest.approx(found, rel=0.05)


def test_tokens_that_were_encoded_before_need_no_image_encoder():
    model, given = larger(), batch(image_size=32, num_frames=(1, 1), lengths=(9, 12))
    rest = (given.frame_mask, given.ids, given.text_mask, given.groups, given.keys)
    given = Batch(None, *rest, tokens=torch.randn(2, 1, 64, 64))
    parts = activations_by_part(model.config, shape_of(given), bfloat16=False, encoded=True)
    assert parts["image_encoder"] == Kept()
    assert (
        activations_by_part(model.config, shape_of(given), bfloat16=False, trained={"poolers", "heads"})
        == parts
    )
    found = saved_bytes(model, given, LOSSES["both"], bfloat16=False)
    assert sum(parts.values(), Kept()).whole == pytest.approx(found, rel=0.05)


def test_recomputation_holds_one_block_at_a_time():
    kept = Kept(100, 10, largest_block=40, workspace=7) * 3 + Kept(5, 5)
    assert kept == Kept(305, 35, largest_block=40, workspace=7)
    assert (kept.total(recompute=False), kept.total(recompute=True)) == (305, 75)


def test_embeddings_of_all_processes_or_of_three():
    config = coca(embed_dim=20).config
    gathered, ring = (
        losses_bytes(config, own_pairs=8, num_processes=64, ring=ring) for ring in (False, True)
    )
    assert gathered - ring == (65 - 3) * 8 * 2 * 2 * 20 * 4


def test_frames_wait_as_bytes_and_those_of_a_part_are_floats():
    share, part = StepShape(5, 12, 3, 9, 4), StepShape(2, 5, 3, 4, 4)
    assert frames_bytes(share, part, image_size=2, frame_size=4) == 3 * (15 * 16 + 6 * 4 * 4)
