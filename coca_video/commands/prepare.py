"""`coca-video prepare`: public data sets, and one's own, as manifests for training and evaluation."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from coca_video.cli import CONFIGS
from coca_video.data.benchmarks import emoji, shapes
from coca_video.data.benchmarks.catalogue import SETS
from coca_video.data.benchmarks.listing import Files, PublicSet
from coca_video.data.benchmarks.preparing import prepare, summary
from coca_video.errors import InputError


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.dataset == "emoji":
        print("\n".join(emoji.prepare(arguments.root, packs=arguments.packs)))
        return
    if arguments.dataset == "shapes":
        print("\n".join(shapes.prepare(arguments.root, _shapes_config(arguments))))
        return
    public_set, root = SETS[arguments.dataset], arguments.root
    media = arguments.media or root
    for folder in (root, media):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; {public_set.name} needs: {public_set.layout}")
    files = Files(root, media, dict(_pair(each) for each in arguments.column))
    folder = arguments.output or root / "manifests"
    written, skipped = prepare(public_set, files, splits=arguments.split, folder=folder)
    print("".join(f"{line}\n" for line in skipped), end="")
    for manifest, card in written:
        print("\n".join(summary(manifest, card)))
        for name in _evaluations(manifest.name):
            print(f"  coca-video evaluate checkpoint=... evaluate={name} evaluate.manifest={manifest}")


def _parser() -> argparse.ArgumentParser:
    about = "Reads a data set as its publisher lays it out, says what is missing, and writes manifests."
    parser = argparse.ArgumentParser(description=about)
    datasets = parser.add_subparsers(dest="dataset", required=True, metavar="SET")
    options = datasets.add_parser("emoji", help="fetched: named pictures and animations")
    options.add_argument("--root", type=Path, default=Path("data/emoji"), help="default: %(default)s")
    packs = "animation packs, 3 is the test set; default: %(default)s"
    options.add_argument("--packs", type=int, nargs="+", default=[1, 3], help=packs)
    _add_shapes(datasets)
    for public_set in SETS.values():
        _add_options(datasets, public_set)
    return parser


def _add_shapes(datasets: argparse._SubParsersAction) -> None:
    options = datasets.add_parser("shapes", help="drawn: shapes with captions, questions and statements")
    options.add_argument("--root", type=Path, default=Path("data/shapes"), help="default: %(default)s")
    options.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options.add_argument(
        "--size", type=int, default=shapes.ShapesConfig().size, help="in pixels; default: %(default)s"
    )
    for split, number in shapes.NUM_PICTURES.items():
        options.add_argument(
            f"--num-{split}", type=int, default=number, help="pictures; default: %(default)s"
        )


def _shapes_config(arguments: argparse.Namespace) -> shapes.ShapesConfig:
    num_pictures = {split: getattr(arguments, f"num_{split}") for split in shapes.NUM_PICTURES}
    return shapes.ShapesConfig(arguments.seed, num_pictures, arguments.size)


def _add_options(datasets: argparse._SubParsersAction, public_set: PublicSet) -> None:
    title = public_set.title.replace("%", "%%")
    about = f"{title}. Needed: {public_set.layout.replace('%', '%%')}"
    options = datasets.add_parser(public_set.name, help=title, description=about)
    options.add_argument("--root", type=Path, required=True, help="the folder of the publisher's files")
    options.add_argument("--media", type=Path, help="the videos or pictures, if they lie elsewhere")
    known = ", ".join(public_set.splits) or "the name of a table"
    options.add_argument("--split", nargs="+", default=[], help=f"{known}; default: all that are there")
    options.add_argument("--output", type=Path, help="where manifests go; default: ROOT/manifests")
    options.set_defaults(column=[])
    if public_set.name == "table":
        naming = "which column is what, as in text=caption"
        options.add_argument("--column", nargs="+", metavar="ROLE=NAME", help=naming)


def _pair(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if not (role and equals and name):
        raise InputError(f"--column {text}: written ROLE=NAME, as in text=caption")
    return role, name


def _evaluations(manifest_name: str) -> Iterator[str]:
    """The evaluations in configs/ that are made for a manifest of this name."""
    for path in sorted((CONFIGS / "evaluate").glob("*.yaml")):
        if f"/{manifest_name}" in path.read_text(encoding="utf-8"):
            yield path.stem
