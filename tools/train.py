"""Trains a model; the same command continues an interrupted run.

    python tools/train.py recipe=emoji/image
    python tools/train.py recipe=emoji/video init=runs/emoji/image

Settings are `key=value`, the keys those of coca_video/config.py's TrainConfig: loop.num_steps=600.
"""

from coca_video.cli import run
from coca_video.commands.train import main

if __name__ == "__main__":
    run(main)
