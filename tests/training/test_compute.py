import pytest
import torch
from steps import batch
from tiny import POOLERS, coca, image_config, temporal_config, text_config
from torch import Tensor

from coca_video.data.samples import Batch
from coca_video.errors import InputError
from coca_video.models.adaptors import Adaptor
from coca_video.models.coca import CoCa
from coca_video.models.text_decoder import TextStyle
from coca_video.training.compute import ComputeConfig, Precision, autocast, prepare
from coca_video.training.gradients import ModelCall, compute_gradients
from coca_video.training.step import Inputs, LossConfig

LOSSES = {"both": LossConfig(), "caption": LossConfig(2.0, 0.0), "contrast": LossConfig(0.0, 1.0)}


def losses_and_gradients(model: CoCa, config: ComputeConfig, loss: LossConfig = LossConfig()) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    given = batch()
    prepare(model, config)
    with autocast(config, torch.device("cpu")):
        losses = gradients_of(model, given.frames / 255, given, loss, config)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*(losses[name] for name in sorted(losses)), *gradients]


def gradients_of(
    model: CoCa, frames: Tensor, given: Batch, loss: LossConfig, config: ComputeConfig
) -> dict[str, Tensor]:
    how = {"micro_batch_size": config.micro_batch_size}
    return compute_gradients(ModelCall(model), model, Inputs.of(given, frames), loss, **how)


def assert_equal(found: list[Tensor], expected: list[Tensor], *, tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        largest = max(1.0, theirs.abs().max().item())
        torch.testing.assert_close(ours, theirs, atol=tolerance * largest, rtol=0)


MODELS = [
    *POOLERS,
    *({"temporal": temporal_config(adaptor)} for adaptor in Adaptor),
    {"text": text_config(style=TextStyle.open_clip)},
]


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
@pytest.mark.parametrize("case", LOSSES)
def test_micro_batches_give_the_losses_and_gradients_of_the_whole(case, changes):
    """Three clips as two and one."""
    model = coca(**changes).train()
    whole = losses_and_gradients(model, ComputeConfig(), LOSSES[case])
    assert_equal(losses_and_gradients(model, ComputeConfig(micro_batch_size=2), LOSSES[case]), whole)


def test_one_micro_batch_is_in_memory_at_a_time():
    """The image encoder sees no more clips at once, in the backward pass either."""
    model, seen = coca().train(), []
    model.image_encoder.blocks[0].mlp.hidden.register_forward_hook(lambda _, x, y: seen.append(len(x[0])))
    losses_and_gradients(model, ComputeConfig(micro_batch_size=1))
    assert sorted(seen) == [2, 2, 3, 3, 3, 3]  # frames of one clip; the second has one fewer


@pytest.mark.parametrize("changes", MODELS, ids=range(len(MODELS)))
def test_recomputed_blocks_give_the_same(changes):
    model = coca(**changes).train()
    kept = losses_and_gradients(model, ComputeConfig())
    assert_equal(losses_and_gradients(model, ComputeConfig(recompute=True)), kept)


@pytest.mark.parametrize("config", [ComputeConfig(recompute=True), ComputeConfig(micro_batch_size=2)])
def test_dropout_is_the_same_when_computed_again(config):
    """Otherwise the gradient would be another network's: numerical differences tell."""
    model = coca(image=image_config(dropout=0.3)).double().train()
    weight, given = model.image_encoder.blocks[0].mlp.out.weight, batch()
    prepare(model, config)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return gradients_of(model, (given.frames / 255).double(), given, LossConfig(), config)["loss"]

    loss()
    gradient = weight.grad.clone()
    direction, step = torch.randn(weight.shape, dtype=torch.double), 1e-2
    weight.data += step * direction
    after = loss()
    weight.data -= 2 * step * direction
    before = loss()
    slope = (after - before) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=0.01)


def test_bfloat16_is_close():
    model = coca().train()
    exact = losses_and_gradients(model, ComputeConfig())
    rounded = losses_and_gradients(model, ComputeConfig(precision=Precision.bfloat16))
    assert all(gradient.dtype == torch.float32 for gradient in rounded)
    assert 0 < (rounded[0] - exact[0]).abs() < 0.05
    cosines = [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in zip(rounded, exact)]
    assert torch.stack(cosines).median() > 0.99


def test_compiled_blocks_give_the_same():
    model = coca().train()
    plain = losses_and_gradients(model, ComputeConfig())
    assert_equal(losses_and_gradients(model, ComputeConfig(compile=True)), plain)


def test_batch_norm_needs_the_whole_batch():
    model = coca(image=image_config(stem="conv"))
    with pytest.raises(InputError, match="micro_batch_size must be 0, got 2: .*needs the statistics"):
        prepare(model, ComputeConfig(micro_batch_size=2))
    prepare(model, ComputeConfig(recompute=True))


def test_sizes_are_not_negative():
    with pytest.raises(ValueError, match="micro_batch_size must not be negative, got -1"):
        ComputeConfig(micro_batch_size=-1)
