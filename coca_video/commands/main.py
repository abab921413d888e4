"""`coca-video COMMAND ...`: every command behind one name."""

import sys
from pkgutil import resolve_name

# Imported only when called: `--help` needs no torch.
COMMANDS = {
    "train": "train a model, or continue an interrupted run",
    "submit": "train as a job of a cluster (SLURM), which goes on after preemption and time limits",
    "plan": "which settings of a recipe fit some accelerators; hours and cost",
    "evaluate": "a checkpoint's figures on a benchmark",
    "probe": "what a frozen encoder knows: attentional, linear and k-NN classifiers on its features",
    "report": "one table out of many results, published figures beside them",
    "caption": "what a video shows, as a whole and frame by frame",
    "prepare": "a public data set, or one's own, as manifests; what is missing",
    "pack": "the videos and pictures of a manifest as WebDataset shards",
    "scan": "find the videos that cannot be decoded whole",
    "convert": "open_clip checkpoints, in and out",
    "interpolate": "a checkpoint between two others, say before and after fine-tuning",
    "benchmark": "measure speed and memory",
}


def main() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return
    if name not in COMMANDS:
        print(f"error: {name}: no such command; the choices are {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    from coca_video.cli import run

    sys.argv = [f"coca-video {name}", *arguments]
    run(lambda: resolve_name(f"coca_video.commands.{name.replace('-', '_')}:main")())


def _help() -> str:
    lines = [f"  {name:14}{what}" for name, what in COMMANDS.items()]
    usage, more = "usage: coca-video COMMAND ...", "`coca-video COMMAND --help` tells more."
    return "\n".join([usage, "", *lines, "", more])
