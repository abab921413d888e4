import pytest
import torch
import torch.multiprocessing
from processes import start
from steps import batch, distributed_steps
from taught import CLASSES, all_tasks, batch_for, like, with_head
from tiny import POOLERS, coca, coca_config, image_config, name, shaken, temporal_config, text_config
from torch import nn

from coca_video.data.tokenizer import Tokenizer
from coca_video.data.transforms import Preprocessing
from coca_video.errors import InputError
from coca_video.models.adaptors import Adaptor, TemporalConfig
from coca_video.models.coca import CoCa, CoCaConfig
from coca_video.models.image_encoder import ImageStyle
from coca_video.models.poolers import PoolerStyle
from coca_video.models.text_decoder import TextStyle
from coca_video.tasks.classification import Classification
from coca_video.tasks.question_answering import QuestionAnswering
from coca_video.tasks.task import Task
from coca_video.training.optim import OptimizerConfig, group_of
from coca_video.training.regimes import (
    ALL,
    Phase,
    Regime,
    TuningConfig,
    freeze_all_but,
    plan_phases,
    reached_by_task,
    reached_parameters,
)
from coca_video.training.state import TrainingState
from coca_video.training.step import Inputs, LossConfig, compute_losses, task_losses_of

GROUPS = {"image_encoder", "poolers", "temporal", "unimodal", "multimodal", "heads"}
TABLE = {
    Regime.full: [GROUPS],
    Regime.poolers: [{"poolers", "temporal"}],
    Regime.poolers_then_full: [{"poolers", "temporal"}, GROUPS],
    Regime.lit: [GROUPS - {"image_encoder"}],
    Regime.temporal: [{"temporal"}],
    Regime.heads: [{"heads"}],
    Regime.task_head: [{"task_head"}],
}
LOSSES = {"both": LossConfig(), "caption": LossConfig(contrastive_weight=0.0), "contrast": LossConfig(0.0)}


def plan(config: CoCaConfig, regime: Regime, loss: LossConfig, *, num_steps: int = 4) -> list[Phase]:
    reached = reached_parameters(config, loss)
    return plan_phases(config, TuningConfig(regime), num_steps=num_steps, reached=reached)


def unreached(config: CoCaConfig, loss: LossConfig) -> tuple[str, ...]:
    """How the names of what no loss reads begin, from the drawing of the model."""
    found: list[str] = []
    is_factorised = config.temporal.adaptor is Adaptor.factorised
    if not loss.caption_weight:
        found += ["multimodal.", "heads.vocabulary."]
    if not loss.contrastive_weight:
        found += ["heads.video.", "heads.text.", "heads.log_scale", "unimodal.cls", "unimodal.norm_cls."]
        found += [] if is_factorised else ["poolers.contrastive."]
    if config.poolers is PoolerStyle.parallel and (is_factorised or not loss.caption_weight):
        found += ["poolers.caption."]
    return tuple(found)


def gradients(model: CoCa, loss: LossConfig) -> dict[str, float]:
    """The largest entry of each parameter's gradient; those without one are left out."""
    model.zero_grad(set_to_none=True)
    given = batch()
    compute_losses(model, given.frames / 255, given, loss)["loss"].backward()
    return {n: p.grad.abs().max().item() for n, p in model.named_parameters() if p.grad is not None}


def assert_reached(found: dict[str, float], expected: set[str], *, about: object = None) -> None:
    """Gradients, and none of them zero but where mathematics says so."""
    assert found.keys() == expected, about
    # The same number added to all scores of a query changes no softmax.
    zero = {n for n in found if n.endswith(".key.bias")}
    assert {n for n in found if found[n] < 1e-6} == zero, about


@pytest.mark.parametrize("poolers", POOLERS, ids=name)
@pytest.mark.parametrize("adaptor", Adaptor)
def test_gradients_reach_what_the_regime_trains_and_nothing_else(adaptor, poolers):
    sizes = {"image": image_config(num_layers=1), "temporal": temporal_config(adaptor, num_layers=1)}
    text = text_config(num_unimodal_layers=1, num_multimodal_layers=1)
    model = shaken(coca(text=text, **sizes, **poolers))
    for case, loss in LOSSES.items():
        reached = reached_parameters(model.config, loss)
        dead = unreached(model.config, loss)
        live = {n for n, _ in model.named_parameters() if not n.startswith(dead)}
        for regime, groups in TABLE.items():
            expected = [{n for n in live if n.split(".")[0] in trained} for trained in groups]
            if not all(expected):
                with pytest.raises(InputError, match=f"regime={regime.value} would train nothing"):
                    plan_phases(model.config, TuningConfig(regime), num_steps=4, reached=reached)
                continue
            phases = plan_phases(model.config, TuningConfig(regime), num_steps=4, reached=reached)
            assert len(phases) == len(expected)
            for phase, trained in zip(phases, expected):
                freeze_all_but(model, phase.trained)
                assert_reached(gradients(model, loss), trained, about=(regime, case))


@pytest.mark.parametrize("case", LOSSES)
def test_the_styles_of_open_clip(case):
    """Their own weights too: the class token, [CLS]'s position, the memory's norms."""
    styles = {"image": image_config(style=ImageStyle.clip), "text": text_config(style=TextStyle.open_clip)}
    model = shaken(coca(poolers=PoolerStyle.shared, **styles))
    freeze_all_but(model, reached_parameters(model.config, LOSSES[case]))
    dead = unreached(model.config, LOSSES[case])
    live = {n for n, _ in model.named_parameters() if not n.startswith(dead)}
    assert_reached(gradients(model, LOSSES[case]), live)


def test_groups_are_the_models_parts():
    assert ALL - {"task_head"} == GROUPS == {n for n, _ in coca().named_children()}
    assert TABLE.keys() == set(Regime)


def training_state(model: CoCa, phases: list[Phase]) -> TrainingState:
    return TrainingState(
        model,
        Tokenizer.train(["a text"], vocab_size=300),
        Preprocessing(),
        optimizer=OptimizerConfig(lr=0.01, num_warmup_steps=1),
        phases=phases,
        ema_decay=0.5,
        trained_on=[],
        device=torch.device("cpu"),
    )


def step(state: TrainingState, loss: LossConfig) -> None:
    given = batch()
    losses = compute_losses(state.model, given.frames / 255, given, loss)
    losses["loss"].backward()
    state.clip()
    state.advance()


def in_optimizer(state: TrainingState) -> set[str]:
    held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in state.optimizer.state} <= held
    return {n for n, p in state.model.named_parameters() if id(p) in held}


def in_training(model: nn.Module) -> set[str]:
    """Groups that are, with all their modules, in training mode; the others are wholly in eval mode."""
    modes = {group: {part.training for part in module.modules()} for group, module in model.named_children()}
    assert all(len(mode) == 1 for mode in modes.values())
    return {group for group, mode in modes.items() if mode == {True}}


@pytest.mark.parametrize(
    ("regime", "case"),
    [(regime, "both") for regime in Regime if regime not in (Regime.poolers_then_full, Regime.task_head)]
    + [(Regime.full, "caption"), (Regime.full, "contrast")],
)
def test_steps_change_what_the_regime_trains_and_nothing_else(regime, case):
    """In the average too, and with dropout and batch norm at work."""
    image = image_config(stem="conv", dropout=0.5)
    model = shaken(coca(temporal=temporal_config(Adaptor.attentional), image=image))
    before = {n: value.clone() for n, value in model.state_dict().items()}
    phases = plan(model.config, regime, LOSSES[case])
    state = training_state(model, phases)
    for _ in range(3):
        step(state, LOSSES[case])
    trained = phases[0].trained
    assert in_optimizer(state) == trained == {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(state.optimizer.state) == len(trained)
    groups = {n.split(".")[0] for n in trained}
    assert in_training(model) == groups
    for weights in (model.state_dict(), state.average.state_dict()):
        moved = {n for n, value in weights.items() if not torch.equal(value, before[n])}
        statistics = {n for n in weights if n not in dict(model.named_parameters())}
        expected = trained | (statistics if "image_encoder" in groups else set())
        # Softmax does not see a bias of keys: where few queries read, its gradient is zero to the last bit.
        assert expected - {n for n in trained if n.endswith(".key.bias")} <= moved <= expected
    assert all(p.grad is None for n, p in model.named_parameters() if n not in trained)


def test_frozen_dropout_is_off():
    model = coca(image=image_config(dropout=0.5))
    (phase,) = plan(model.config, Regime.lit, LossConfig())
    freeze_all_but(model, phase.trained)
    frames = batch().frames / 255
    assert torch.equal(model.encode_video(frames), model.encode_video(frames))
    freeze_all_but(model, ALL | {n for n, _ in model.named_parameters()})
    assert not torch.equal(model.encode_video(frames), model.encode_video(frames))


def test_two_phases_are_two_runs():
    """The second begins with a new optimizer, and its own warm-up and decay over the steps that are left."""
    model = coca(image=image_config(dropout=0.5))
    tuning = TuningConfig(Regime.poolers_then_full, first_share=0.4)
    every = {n for n, _ in model.named_parameters()}
    phases = plan_phases(model.config, tuning, num_steps=5, reached=every)
    assert [(phase.first, phase.num_steps) for phase in phases] == [(0, 2), (2, 3)]
    state, seen = training_state(model, phases), []
    for _ in range(5):
        seen.append((in_training(model), in_optimizer(state), state.schedule.last_epoch))
        step(state, LossConfig())
    some = {n for n in every if n.startswith("poolers.")}
    assert [names for _, names, _ in seen] == [some, some, every, every, every]
    assert [groups for groups, _, _ in seen][:2] == [{"poolers"}, {"poolers"}]
    assert seen[2][0] == GROUPS - {"temporal"}  # it has no weights here
    assert [epoch for _, _, epoch in seen] == [0, 1, 0, 1, 2]
    counts = {state.optimizer.state[p]["step"].item() for p in model.parameters()}
    assert counts == {3}


def test_what_a_phase_says():
    model = coca()
    total = sum(p.numel() for p in model.parameters()) / 1e6
    poolers = sum(p.numel() for p in model.poolers.parameters()) / 1e6
    first, second = plan(model.config, Regime.poolers_then_full, LOSSES["caption"])
    caption = sum(p.numel() for p in model.poolers.caption.parameters()) / 1e6
    assert poolers > caption
    rest = "image_encoder, poolers in part, unimodal, multimodal, heads"
    expected = f"steps 0 to 1 train poolers: {caption:.1f}M of {total:.1f}M parameters; frozen: {rest}"
    assert first.summary(model) == expected
    parts = "poolers in part, unimodal in part, heads in part"
    assert second.summary(model).startswith("steps 2 to 3 train image_encoder, poolers, unimodal, ")
    assert second.summary(model).endswith(f"; frozen: {parts}")
    (whole,) = plan(model.config, Regime.full, LossConfig())
    groups = "image_encoder, poolers, unimodal, multimodal, heads"
    assert whole.summary(model) == f"steps 0 to 3 train {groups}: {total:.1f}M of {total:.1f}M parameters"


def test_a_regime_that_would_train_nothing():
    with pytest.raises(InputError) as refused:
        plan(coca_config(temporal=TemporalConfig(Adaptor.mean)), Regime.temporal, LossConfig())
    assert str(refused.value) == (
        "loop.tuning.regime=temporal would train nothing: "
        "the losses reach no weights of temporal with model.temporal.adaptor=mean"
    )


def test_each_phase_has_a_step():
    with pytest.raises(InputError) as refused:
        plan(coca_config(), Regime.poolers_then_full, LossConfig(), num_steps=1)
    expected = "poolers_then_full needs a step for each phase, got 1 with loop.tuning.first_share 0.5"
    assert str(refused.value) == f"loop.num_steps: {expected}"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_the_first_share_is_a_share(share):
    with pytest.raises(ValueError, match=f"first_share must be between 0 and 1, got {share}"):
        TuningConfig(first_share=share)


def test_distributed_steps_with_a_loss_of_weight_zero(tmp_path):
    arguments = (str(tmp_path / "meeting"), [LOSSES["caption"], LOSSES["contrast"]])
    start(distributed_steps, *arguments, num_processes=2)


def task_gradients(model: CoCa, task: Task) -> set[str]:
    """What a step of the task gives a gradient, of clips of one to three frames or of pairs."""
    model.zero_grad(set_to_none=True)
    batch = batch_for(task)
    inputs = Inputs.of(batch, batch.frames / 255)
    task_losses_of(inputs, task, model, num_rows=3)["loss"].backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("poolers", POOLERS, ids=name)
@pytest.mark.parametrize("adaptor", Adaptor)
def test_what_a_task_reaches_is_what_its_steps_train(adaptor, poolers):
    sizes = {"image": image_config(num_layers=1), "temporal": temporal_config(adaptor, num_layers=1)}
    text = text_config(num_unimodal_layers=1, num_multimodal_layers=1)
    for task in [*all_tasks(), all_tasks(blind=True)[1], Silent(classes=CLASSES), Timed(classes=CLASSES)]:
        model = with_head(coca(text=text, **sizes, **poolers), task)
        reached = reached_by_task(model.config, task, like(task))
        assert task_gradients(model, task) == set(reached), task
        groups = {group_of(parameter) for parameter in reached}
        assert "task_head" in groups and ("image_encoder" in groups) is not task.blind, task
        assert ("heads" in groups) is ("answer" in task.weights() and task.weights()["answer"] > 0), task
        assert ("multimodal" in groups) is not isinstance(task, Classification), task


class Silent(QuestionAnswering):
    """Learns to choose alone."""

    def __post_init__(self):
        super().__post_init__()
        self.caption_weight = 0.0


class Timed(Classification):
    """Frames have positions."""

    def __post_init__(self):
        super().__post_init__()
        self.num_positions = 3


@pytest.mark.parametrize("regime", Regime)
def test_a_task_s_head_learns_with_every_regime(regime):
    task = all_tasks()[1]
    config = coca_config(temporal=temporal_config(Adaptor.attentional))
    reached = reached_by_task(config, task, like(task))
    phases = plan_phases(config, TuningConfig(regime), num_steps=4, reached=reached)
    for phase, trained in zip(phases, TABLE[regime], strict=True):
        groups = {group_of(parameter) for parameter in phase.trained}
        assert groups - {"task_head"} == trained - {"task_head"} and "task_head" in groups
