"""`coca-video pack`: the videos and pictures of a manifest as WebDataset shards."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from coca_video.data.manifest import ClipRecord, read_manifest
from coca_video.data.shard_index import format_idx, index_tar
from coca_video.data.shard_records import PICTURES, VIDEOS
from coca_video.data.shards import ShardRecord, write_shards
from coca_video.data.video import VideoReader
from coca_video.errors import InputError
from coca_video.files import write_whole


def main() -> None:
    args = _parser().parse_args()
    if args.max_per_shard < 1:
        raise InputError(f"--max-per-shard {args.max_per_shard}: 1 or more are needed")
    if not re.fullmatch(r"[\w .-]+", args.prefix):  # as a pattern it would name the shards of other sets
        raise InputError(f"--prefix {args.prefix!r}: letters, digits, '_', '-', '.' and blanks are allowed")
    records = read_manifest(args.manifest)
    for record in records:
        _check(record, where=args.manifest)
    shards = write_shards(
        args.output, _samples(records), max_per_shard=args.max_per_shard, prefix=args.prefix
    )
    for old in args.output.glob(f"{args.prefix}-{'[0-9]' * 6}.idx"):
        old.unlink()
    for shard in shards:
        write_whole(shard.with_suffix(".idx"), format_idx(index_tar(shard)))
    print(f"{len(records)} samples in {len(shards)} shards: {args.output / args.prefix}-*.tar")


def _samples(records: list[ClipRecord]) -> Iterator[ShardRecord]:
    for number, record in enumerate(tqdm(records, desc="packing", unit="sample", delay=3)):
        suffix = _suffix(record)
        # Opening a video finds most that are damaged, and its seconds are known to readers of the shards.
        duration = VideoReader(record.path).duration if suffix in VIDEOS else None
        identity = {"id": record.id} if record.id else {}
        yield ShardRecord(
            f"{number:08d}",
            record.path.read_bytes(),
            record.text,
            identity | record.labels,
            suffix,
            record.more_texts,
            duration,
        )


def _check(record: ClipRecord, *, where: Path) -> None:
    if not record.path.is_file():
        raise InputError(f"{where}: names {record.path}, which is no file")
    if _suffix(record) not in (*PICTURES, *VIDEOS):
        wanted = ", ".join((*PICTURES, *VIDEOS))
        raise InputError(f"{record.path}: cannot be packed; its ending must be one of {wanted}")
    for name in ("span", "second_path", "answers"):
        if getattr(record, name):
            raise InputError(f"{where}: {record.name} has the field {name}, which shards cannot hold")


def _suffix(record: ClipRecord) -> str:
    return record.path.suffix.lower().removeprefix(".")


def _parser() -> argparse.ArgumentParser:
    about = "Packs the videos and pictures of a manifest, with texts and labels, into WebDataset shards."
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("manifest", type=Path, help="JSON lines, as `prepare` writes them")
    parser.add_argument("output", type=Path, help="the folder of the shards, and of their .idx files")
    parser.add_argument("--max-per-shard", type=int, default=1000, help="samples; default: %(default)s")
    parser.add_argument("--prefix", default="shard", help="of the shards' names; default: %(default)s")
    return parser
