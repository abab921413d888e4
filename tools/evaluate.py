"""Evaluates a checkpoint on a benchmark, into a JSON result and one prediction a clip.

    python tools/evaluate.py checkpoint=runs/emoji/video evaluate=emoji

Settings are `key=value`, the keys those of coca_video/config.py's EvaluateConfig.
"""

from coca_video.cli import run
from coca_video.commands.evaluate import main

if __name__ == "__main__":
    run(main)
