"""Pictures of measurements: the only module that imports matplotlib."""

import importlib
import importlib.util
from pathlib import Path

from coca_video.errors import InputError

INSTALL = "pip install 'coca-video[benchmark]'"


def check_can_plot() -> None:
    """Before minutes of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"--plot needs matplotlib: {INSTALL}")


def save_log_log(path: Path, curves: dict[str, dict[int, float]], slopes: dict[str, float]) -> None:
    """A PNG with one panel a curve: seconds (shown as ms) by a count, whose name is the curve's."""
    figure = importlib.import_module("matplotlib.figure").Figure(
        figsize=(4 * len(curves), 3.5), layout="constrained"
    )
    for axes, (name, seconds) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items()):
        axes.loglog(list(seconds), [1000 * each for each in seconds.values()], marker="o")
        axes.set(xlabel=name, ylabel="time (ms)", title=f"slope {slopes[name]:.2f}")
        axes.set_xticks(list(seconds), labels=map(str, seconds))
        axes.xaxis.minorticks_off()
        axes.grid(which="both", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=120)
