import pytest
import torch
from parallel_steps import Case, Outcome, begin_two_phases, cases, plain_of, train, train_cases
from processes import in_processes, start

from coca_video.training.compute import Precision


class Plain(dict):
    """By the case's name: one process, one pass; made when it is asked for."""

    def __missing__(self, case: str) -> Outcome:
        self[case] = train(next(plain_of(each) for each in cases() if str(plain_of(each)) == case))
        return self[case]


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain()


def some_of(numbers: list[int]) -> list[Case]:
    every = cases()
    return [every[number] for number in numbers]


# Many processes on two cores take their time: by default as many cases as show each thing that can differ.
@pytest.mark.parametrize(
    ("num", "some"),
    [
        (2, some_of([3, 4, 6, 10, 12])),
        (4, some_of([7])),
        pytest.param(2, cases(), marks=pytest.mark.slow),
        pytest.param(4, cases(), marks=pytest.mark.slow),
    ],
    ids=["2", "4", "2-all", "4-all"],
)
def test_processes_equal_one(num, some, plain, tmp_path):
    """Losses, gradients, norms, and weights after ten steps, the last of fewer rows than processes."""
    start(train_cases, num, str(tmp_path / "meeting"), some, tmp_path / "outcomes", num_processes=num)
    together = [Outcome(**found) for found in torch.load(tmp_path / "outcomes")]
    for case, found in zip(some, together, strict=True):
        assert_same(found, plain[str(plain_of(case))], case)


def test_micro_batches_equal_one_pass(plain):
    """Cached ones always; separate ones where nothing but captions is learned."""
    for case in some_of([1, 8, 9]):
        assert_same(train(case), plain[str(plain_of(case))], case)


def assert_same(found: Outcome, expected: Outcome, case: Case) -> None:
    """In bfloat16 other shares are rounded otherwise: after ten steps by some hundredths."""
    loss, norm, tensor = (1e-6, 1e-4, 1e-5) if case.precision is Precision.float32 else (0.05, 0.3, 0.03)
    for ours, theirs in zip(found.losses, expected.losses, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=loss), case
    assert found.norms == pytest.approx(expected.norms, rel=norm), case
    for name in ("gradients", "weights"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.keys() == theirs.keys() and ours
        for key in ours:
            close = {"atol": tensor * max(1, theirs[key].abs().max().item()), "rtol": 0}
            torch.testing.assert_close(ours[key], theirs[key], **close, msg=lambda m: f"{case} {key}: {m}")


def test_a_phase_leaves_nothing_of_the_one_before(tmp_path):
    in_processes(tmp_path, begin_two_phases)
