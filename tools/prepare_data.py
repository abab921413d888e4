"""Fetch and convert a public data set.

    python tools/prepare_data.py emoji --root data/emoji --packs 1 3

An interrupted run can be started again; what is finished is kept.
"""

import argparse
from pathlib import Path

from coca_video.cli import run
from coca_video.data.benchmarks import emoji


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and convert a public data set.")
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    options = datasets.add_parser("emoji", help="named pictures and animations")
    options.add_argument("--root", type=Path, default=Path("data/emoji"), help="where to put it (%(default)s)")
    options.add_argument("--packs", type=int, nargs="+", default=[1, 3], help="animation packs, 3 is the test set (1 3)")
    arguments = parser.parse_args()
    print("\n".join(emoji.prepare(arguments.root, packs=arguments.packs)))


if __name__ == "__main__":
    run(main)
