"""Says which settings of a recipe fit some accelerators, how long the run takes, and what it costs.

    python tools/plan.py recipe=emoji/image model=coca_2b devices=64 memory=80 device=h100 price_per_hour=2

Settings are training's, beside those of the plan: see --help.
"""

from coca_video.cli import run
from coca_video.commands.plan import main

if __name__ == "__main__":
    run(main)
