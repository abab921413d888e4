from dataclasses import replace

import pytest
import torch
from planned import LOSSES, batch, counted_flops, counting, shape_of
from tiny import POOLERS, coca, coca_config, image_config, temporal_config, text_config

from coca_video.cli import load_option
from coca_video.data.samples import Batch
from coca_video.layers.transformer import Block
from coca_video.losses import contrastive_loss
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.models.text_decoder import TextStyle
from coca_video.planning.flops import GROUPS, StepShape, Work, flops_of_step, work_by_part
from coca_video.training.gradients import ModelCall, compute_gradients
from coca_video.training.optim import group_of
from coca_video.training.regimes import freeze_all_but, reached_parameters
from coca_video.training.step import Inputs

MODELS = [
    *POOLERS,
    *({"temporal": temporal_config(adaptor)} for adaptor in Adaptor),
    {"text": text_config(style=TextStyle.open_clip)},
    {"image": image_config(stem="conv")},
    {"image": image_config(style="clip"), "temporal": temporal_config(Adaptor.joint)},
    {"num_caption_queries": 0, "temporal": temporal_config(Adaptor.mean)},
    {"num_caption_queries": 0, "temporal": temporal_config(Adaptor.factorised)},
]


def assert_counted(
    model: CoCa, given: Batch, *, case: str = "both", trained: set[str] = set(GROUPS), recompute: bool = False
) -> None:
    """Forward and backward, each to the last FLOP."""
    loss = LOSSES[case]
    reached = reached_parameters(model.config, loss)
    freeze_all_but(model, [name for name in reached if group_of(name) in trained])
    for block in model.modules():
        if isinstance(block, Block):
            block.recompute = recompute
    how = {"trained": trained, "captioning": case != "contrast", "contrastive": case != "caption"}
    how["encoded"] = given.frames is None
    work = sum(work_by_part(model.config, shape_of(given), **how).values(), Work())
    forward, backward = counted_flops(model, given, loss)
    assert (work.forward, work.total(recompute=recompute, cached=False)) == (forward, forward + backward)
    found = flops_of_step(model.config, shape_of(given), recompute=recompute, **how)
    assert found == forward + backward


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_every_model(changes):
    assert_counted(coca(**changes), batch())


@pytest.mark.parametrize("case", ["caption", "contrast"])
@pytest.mark.parametrize("adaptor", [Adaptor.attentional, Adaptor.factorised])
def test_one_loss_alone(case, adaptor):
    assert_counted(coca(temporal=temporal_config(adaptor)), batch(), case=case)


@pytest.mark.parametrize(
    "trained",
    [set(GROUPS) - {"image_encoder"}, {"poolers", "temporal"}, {"temporal"}, {"heads"}, {"multimodal"}],
    ids=lambda trained: "-".join(sorted(trained)),
)
def test_what_is_frozen_has_less_work(trained):
    assert_counted(coca(temporal=temporal_config(Adaptor.joint)), batch(), trained=trained)


@pytest.mark.parametrize("trained", [set(GROUPS), {"poolers"}], ids=["all", "poolers"])
@pytest.mark.parametrize(
    "changes", [{}, {"text": text_config(style=TextStyle.open_clip)}], ids=["coca", "open"]
)
def test_recomputed_blocks(trained, changes):
    assert_counted(coca(**changes), batch(), trained=trained, recompute=True)


def test_sizes_other_than_the_model_s():
    assert_counted(coca(), batch(image_size=32, num_frames=(1, 1, 1)))


def test_tokens_that_were_encoded_before_and_are_read_in_parts():
    model = coca(image=image_config(image_size=32, patch_size=2))
    given = batch(num_frames=(65,), lengths=(6,))
    tokens = torch.randn(1, 65, 256, 16)
    given = Batch(None, given.frame_mask, given.ids, given.text_mask, given.groups, given.keys, tokens=tokens)
    assert_counted(model, given, trained=set(GROUPS) - {"image_encoder"})


def test_micro_batches_compute_embeddings_twice():
    model, given = coca().train(), batch(num_frames=(2, 2, 2, 2), lengths=(6, 6, 6, 6))
    inputs = Inputs.of(given, given.frames / 255)
    with counting() as counter:
        compute_gradients(ModelCall(model), model, inputs, LOSSES["both"], micro_batch_size=2)
    found = flops_of_step(model.config, shape_of(given), cached=True)
    # The learned queries are projected by each of the two parts: twice forward, and backward as two products.
    assert counter.get_total_flops() == found + 4 * 2 * (5 + 1) * 24 * 24


def test_similarities_with_other_processes_pairs():
    shape = StepShape(3, 3, 1, 18, 6, num_pairs=7)
    work = work_by_part(coca_config(), shape)["contrastive"]
    assert (work.forward, work.backward) == (2 * 2 * 3 * 7 * 20, 3 * 2 * 2 * 3 * 7 * 20)
    alone = work_by_part(coca_config(), replace(shape, num_pairs=None))["contrastive"]
    unit = [torch.randn(3, 20, requires_grad=True) for _ in range(2)]
    with counting() as counter:
        contrastive_loss(*unit, torch.tensor(1.0)).backward()
    assert alone.forward + alone.backward == counter.get_total_flops()


def test_patch_dropout_leaves_out_tokens():
    model, given = coca().train(), batch()
    model.image_encoder.patch_dropout = 0.5
    shape = replace(shape_of(given), patch_dropout=0.5)
    assert flops_of_step(model.config, shape) == sum(counted_flops(model, given, LOSSES["both"]))


def test_a_large_model_by_the_rule_of_six():
    """6 FLOPs a parameter and token, attention beside (PaLM, appendix B)."""
    config = load_option(CoCaConfig, "model", "coca_2b")
    work = work_by_part(config, StepShape(1, 1, 1, 64, 64))["image_encoder"]
    layers, attention = 1011.7e6 * 256, 40 * 2 * 256 * 256 * 1408
    assert work.forward + work.backward == pytest.approx(6 * (layers + attention), rel=0.01)
