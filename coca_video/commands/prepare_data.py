"""`tools/prepare_data.py`: fetches a public data set and converts it."""

import argparse
from pathlib import Path

from coca_video.data.benchmarks import emoji


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetches and converts a public data set.")
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    options = datasets.add_parser("emoji", help="named pictures and animations")
    options.add_argument("--root", type=Path, default=Path("data/emoji"), help="default: %(default)s")
    packs = "animation packs, 3 is the test set; default: %(default)s"
    options.add_argument("--packs", type=int, nargs="+", default=[1, 3], help=packs)
    arguments = parser.parse_args()
    print("\n".join(emoji.prepare(arguments.root, packs=arguments.packs)))
