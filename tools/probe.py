"""Probes a checkpoint's frozen encoder: an attentional, linear or k-NN classifier on its features.

    python tools/probe.py checkpoint=runs/emoji/image probe=emoji probe.kind=attentional

Settings are `key=value`, the keys those of coca_video/config.py's ProbeCommandConfig.
"""

from coca_video.cli import run
from coca_video.commands.probe import main

if __name__ == "__main__":
    run(main)
