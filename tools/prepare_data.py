"""Fetches and converts a public data set.

    python tools/prepare_data.py emoji --root data/emoji --packs 1 3

An interrupted run can be started again; what is finished is kept.
"""

from coca_video.cli import run
from coca_video.commands.prepare_data import main

if __name__ == "__main__":
    run(main)
