from dataclasses import replace

import pytest
from tiny import coca_config, image_config

from coca_video.planning.flops import GROUPS, StepShape, flops_of_step
from coca_video.planning.plan import Cluster, Phase, Run, as_figures, as_text, make_plan, shape_of_rows

BATCH = StepShape(64, 64, 1, 640, 12)
RUN = Run(
    coca_config(),
    [Phase(100, frozenset(GROUPS), BATCH)],
    optimizer="adamw",
    averaged=True,
    bfloat16=False,
)
CLUSTER = Cluster(4, memory=1e9, peak=1e12, utilisation=0.5, reserve=0.0, price_per_hour=2.0)


def tight(run: Run = RUN, **changes) -> Cluster:
    """Room for one row more than the least that can be had, and a little more."""
    least = make_plan(run, CLUSTER).least
    return replace(CLUSTER, memory=least.memory + 1, **changes)


def test_with_much_memory_the_plain_way_is_the_best():
    best = make_plan(RUN, CLUSTER).best
    assert (best.sharing, best.recompute, best.rows, best.micro_batch_size) == ("ddp", False, 16, 16)
    shape = replace(shape_of_rows(BATCH, 16), num_pairs=64)
    assert best.flops == best.model_flops == 100 * flops_of_step(RUN.model, shape)
    assert best.hours(CLUSTER) == best.flops / 0.5e12 / 3600


def test_with_the_least_memory_one_row_at_a_time_recomputed_in_shards():
    plan = make_plan(RUN, tight())
    assert [(choice.sharing, choice.recompute) for choice in plan.choices] == [("fsdp", True)]
    best = plan.best
    assert best.rows == 16 and best.num_parts > 1 and best.memory <= plan.cluster.usable
    assert best.flops > 1.2 * best.model_flops


def test_nothing_fits():
    plan = make_plan(RUN, replace(tight(), memory=make_plan(RUN, CLUSTER).least.memory - 1))
    assert plan.best is None
    needed = f"{plan.least.memory / 1e9:.1f} GB a device (fsdp, recomputed)"
    assert f"nothing fits: one row at a time needs {needed}" in as_text(plan)


@pytest.mark.parametrize("factor", [1.01, 1.05, 1.2])
def test_the_largest_micro_batch_that_fits(factor):
    memory = make_plan(RUN, CLUSTER).least.memory * factor
    choices = make_plan(RUN, replace(CLUSTER, memory=memory)).choices
    assert choices and all(choice.memory <= memory for choice in choices)
    assert all(choice.num_parts == -(-16 // choice.micro_batch_size) for choice in choices)


def test_one_device_shares_nothing():
    plan = make_plan(RUN, replace(CLUSTER, num_devices=1))
    assert {choice.sharing for choice in plan.choices} == {"alone"}
    assert "sharing=" not in as_text(plan)


def test_batch_norm_wants_the_whole_batch():
    run = replace(RUN, model=coca_config(image=image_config(stem="conv")))
    plan = make_plan(run, tight(run))
    assert plan.least.micro_batch_size == 16 and {choice.num_parts for choice in plan.choices} == {1}


def test_phases_add_up_and_the_fullest_must_fit():
    frozen = Phase(50, frozenset({"poolers"}), BATCH)
    both, first = (
        make_plan(replace(RUN, phases=phases), CLUSTER) for phases in ([frozen, *RUN.phases], [frozen])
    )
    whole = make_plan(RUN, CLUSTER)
    assert both.best.flops == first.best.flops + whole.best.flops
    assert both.best.memory == whole.best.memory > first.best.memory


def test_separate_micro_batches_compute_nothing_twice():
    cluster = replace(CLUSTER, memory=make_plan(RUN, CLUSTER).choices[-1].memory * 0.9)
    for separate in (False, True):
        plain = [
            choice
            for choice in make_plan(replace(RUN, separate=separate), cluster).choices
            if not choice.recompute and choice.num_parts > 1
        ]
        assert plain and all((choice.flops == choice.model_flops) is separate for choice in plain)


def test_shares_of_a_batch_are_rounded_up():
    shape = shape_of_rows(StepShape(10, 25, 4, 33, 9), 3)
    assert (shape.num_clips, shape.num_frames, shape.num_tokens, shape.longest_clip) == (3, 8, 10, 4)


def test_the_table_and_its_figures_are_the_same():
    plan = make_plan(RUN, CLUSTER)
    lines = as_text(plan).splitlines()
    header, first, *_ = lines[lines.index("") + 1 :]
    figures = as_figures(plan)["choices"][0]
    assert header.split()[-1] == "cost" and first.split()[:3] == ["->", "ddp", "no"]
    assert figures["cost"] == 2.0 * figures["device_hours"] == 8.0 * figures["hours"]
    last = as_text(plan).splitlines()[-1]
    assert last.startswith("settings: loop.parallel.sharing=ddp loop.compute.micro_batch_size=0 ")
