"""Measures speed as ratios, both sides in one run on the same machine.

python tools/benchmark.py generate --output runs/benchmark/generate.json
"""

from coca_video.cli import run
from coca_video.commands.benchmark import main

if __name__ == "__main__":
    run(main)
