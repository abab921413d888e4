"""The emoji transfer benchmark: learn names from pictures, recognise animations never seen as pictures.

`prepare` makes, under one root folder,

    packages/                      the npm packages, kept
    pictures/{design}-000000.tar   96-pixel PNGs of four designs on white, named (see `data.shards`)
    clips/pack{N}.jsonl            the manifest of one animation pack (see `data.manifest`)
    clips/pack{N}/{code}.mp4       its animations as 128-pixel H.264 on white

Protocol: pack 3 is the test set. ACTIONS is zero-shot classification of the clips of `is_action`, with the
`action` label; RETRIEVAL matches names and clips of `is_retrieval`. Other packs may be trained on as video:
the packs share no concept. The Fluent 3D design of the clips is never seen as a picture. Pictures of people
doing something have the `action` label too: a probe learns the classes of ACTIONS from them.
"""

import re
import signal
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import resvg_py
from tqdm import tqdm

from coca_video.data.benchmarks.card import Card, card_path, file_hash, read_card, write_card
from coca_video.data.benchmarks.emoji_clips import convert_clip, is_animated
from coca_video.data.benchmarks.emoji_sources import (
    OPENMOJI,
    PACKS,
    PICTURES,
    Emoji,
    fetch,
    iterate_webps,
    read_catalogue,
    read_svgs,
)
from coca_video.data.manifest import ClipRecord, read_manifest, write_manifest
from coca_video.data.shards import PictureRecord, iterate_pictures, write_shards
from coca_video.errors import InputError

PICTURE_SIZE = 96  # pixels
PICTURES_PER_SHARD = 1000

TEST_PACK = 3
EXPECTED = {"action clips": 286, "action classes": 18, "retrieval clips": 222}
ACTION_SUBGROUPS = ("person-sport", "person-activity", "person-gesture")
# "woman in lotus position: dark skin tone" -> "lotus position"
ACTOR = re.compile(r"^(person|man|woman|people|men|women) ((with|in) )?")


def prepare(root: Path, *, packs: Sequence[int] = (1, 3), show_progress: bool = True) -> list[str]:
    """Make the pictures and the clips of `packs` under `root`; returns a summary, one line for each part.

    What an earlier run finished is kept, and files appear whole or not at all. Converts on every core in
    spawned processes, so the script that calls it must guard its main. Raises InputError for an unknown pack,
    for a package that cannot be had, and for a test pack that is not the protocol's (`EXPECTED`).
    """
    if unknown := [pack for pack in packs if pack not in PACKS]:
        raise InputError(f"packs: there is no pack {unknown[0]}; allowed are {', '.join(map(str, PACKS))}")
    designs = [design for design in PICTURES if not _is_drawn(root, design)]
    unfinished = [pack for pack in packs if not _is_finished(clips_manifest(root, pack))]
    sources = [PICTURES[design] for design in designs] + [PACKS[pack] for pack in unfinished]
    summary = [f"there already: {len(PICTURES) - len(designs)} designs, {len(packs) - len(unfinished)} packs"]
    if sources:
        with tqdm([OPENMOJI, *sources], desc="packages", disable=not show_progress) as bar:
            files = {package: fetch(package, root / "packages") for package in bar}
        catalogue = read_catalogue(files[OPENMOJI])
        for design in designs:
            svgs = read_svgs(design, files[PICTURES[design]])
            summary.append(_write_pictures(root, design, catalogue, svgs, show_progress=show_progress))
        for pack in unfinished:
            package = files[PACKS[pack]]
            summary.append(_write_clips(root, pack, catalogue, package, show_progress=show_progress))
    if TEST_PACK in packs:
        check_test_pack(clips_manifest(root, TEST_PACK))
    for pack in packs:
        _write_card(clips_manifest(root, pack), pack)
    return summary


def card_of(pack: int, *, num_clips: int) -> Card:
    """Of a pack's manifest: the test pack's parts have official sizes, other packs are nobody's benchmark."""
    subsets = {"action": EXPECTED["action clips"], "skintone=": EXPECTED["retrieval clips"]}
    return Card(
        dataset="emoji",
        title="emoji transfer",
        split=f"pack{pack}",
        num_expected=None,
        num_listed=num_clips,
        num_found=num_clips,
        missing=[],
        annotations={},
        classes=[],
        class_ids=[],
        subsets=subsets if pack == TEST_PACK else {},
        notes=[],
    )


def clips_manifest(root: Path, pack: int) -> Path:
    """Where `prepare` puts the manifest of an animation pack."""
    return root / "clips" / f"pack{pack}.jsonl"


def action_of(name: str) -> str:
    """The action class in the name of a person doing something: no actor, gender or skin tone."""
    return ACTOR.sub("", name.split(":")[0])


def is_action(record: ClipRecord) -> bool:
    """Whether a clip takes part in ACTIONS."""
    return "action" in record.labels


def is_retrieval(record: ClipRecord) -> bool:
    """Whether a clip takes part in RETRIEVAL and CAPTIONS: those without skin tone, one for each name."""
    return not record.labels["skintone"]


def check_test_pack(manifest: Path) -> None:
    """Raise InputError unless the clips of the test pack add up to the protocol's numbers."""
    records = read_manifest(manifest)
    actions = [record.labels["action"] for record in records if is_action(record)]
    found = {
        "action clips": len(actions),
        "action classes": len(set(actions)),
        "retrieval clips": sum(map(is_retrieval, records)),
    }
    if found != EXPECTED:
        raise InputError(f"{manifest}: found {found}, expected {EXPECTED}; remove the file to make it anew")


def _write_card(manifest: Path, pack: int) -> None:
    card = card_of(pack, num_clips=len(read_manifest(manifest)))
    card = replace(card, manifest_sha256=file_hash(manifest))
    if not card_path(manifest).exists() or read_card(manifest) != card:
        write_card(manifest, card)


def _write_pictures(
    root: Path, design: str, catalogue: dict[str, Emoji], svgs: dict[str, str], *, show_progress: bool
) -> str:
    wanted = [emoji for emoji in catalogue.values() if _is_pictured(emoji)]
    drawn = [emoji for emoji in wanted if emoji.code in svgs]
    with tqdm(drawn, desc=f"pictures {design}", disable=not show_progress) as bar:
        pictures = (_draw(emoji, svgs[emoji.code], design=design) for emoji in bar)
        write_shards(root / "pictures", pictures, max_per_shard=PICTURES_PER_SHARD, prefix=design)
    return f"pictures {design}: {len(drawn)} written, {len(wanted) - len(drawn)} not in this design"


def _is_drawn(root: Path, design: str) -> bool:
    """Whether a design's shards are there, with all labels: earlier versions gave pictures no action."""
    if not (root / "pictures" / f"{design}-000000.tar").exists():
        return False
    labels = (picture.labels for picture in iterate_pictures(root / "pictures" / f"{design}-*.tar"))
    return all("action" in each for each in labels if each["subgroup"] in ACTION_SUBGROUPS)


def _is_pictured(emoji: Emoji) -> bool:
    return not (emoji.skintone or emoji.group == "flags" or emoji.group.startswith("extras-"))


def _draw(emoji: Emoji, svg: str, *, design: str) -> PictureRecord:
    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=PICTURE_SIZE, height=PICTURE_SIZE, background="white", skip_system_fonts=True
    )
    labels = {
        "code": emoji.code,
        "design": design,
        "name": emoji.name,
        "tags": emoji.tags,
        "group": emoji.group,
        "subgroup": emoji.subgroup,
        "concept": emoji.concept,
    } | _action_label(emoji)
    return PictureRecord(f"{design}-{emoji.code}", png, emoji.name, labels)


def _write_clips(
    root: Path, pack: int, catalogue: dict[str, Emoji], package: Path, *, show_progress: bool
) -> str:
    manifest = clips_manifest(root, pack)
    folder = manifest.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    num_kept = len(list(folder.glob("*.mp4")))
    skipped: Counter[str] = Counter()
    animations = _select_animations(package, catalogue, skipped)
    records = _convert_all(animations, folder, title=f"clips of pack {pack}", show_progress=show_progress)
    write_manifest(manifest, records)
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(skipped.items())) or "none"
    return f"clips of pack {pack}: {len(records)} found, {len(records) - num_kept} written; skipped {reasons}"


def _is_finished(manifest: Path) -> bool:
    return manifest.exists() and all(record.path.exists() for record in read_manifest(manifest))


def _select_animations(
    package: Path, catalogue: dict[str, Emoji], skipped: Counter
) -> Iterator[tuple[Emoji, bytes]]:
    """The pack's clips and their encoded files; what is not one is counted in `skipped` by its reason."""
    for code, webp in iterate_webps(package):
        if not is_animated(webp):
            skipped["still"] += 1
        elif code not in catalogue:
            skipped["unnamed"] += 1
        elif catalogue[code].group == "flags":
            skipped["flags"] += 1
        else:
            yield catalogue[code], webp


def _convert_all(
    animations: Iterable[tuple[Emoji, bytes]], folder: Path, *, title: str, show_progress: bool
) -> list[ClipRecord]:
    """Write every clip that is not in `folder` yet; the records of all, in order of their codes."""
    records, jobs = [], []
    # Workers leave Ctrl-C to this process, so that the clips they are at become whole.
    with ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        try:
            for emoji, webp in animations:
                record = _clip_record(emoji, folder)
                records.append(record)
                if not record.path.exists():
                    jobs.append(pool.submit(convert_clip, webp, record.path))
            with tqdm(jobs, desc=title, disable=not show_progress) as bar:
                for job in bar:
                    job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return sorted(records, key=lambda record: record.path)


def _clip_record(emoji: Emoji, folder: Path) -> ClipRecord:
    labels = {
        "code": emoji.code,
        "group": emoji.group,
        "subgroup": emoji.subgroup,
        "skintone": emoji.skintone,
        "concept": emoji.concept,
    } | _action_label(emoji)
    return ClipRecord(folder / f"{emoji.code}.mp4", emoji.name, labels)


def _action_label(emoji: Emoji) -> dict[str, str]:
    return {"action": action_of(emoji.name)} if emoji.subgroup in ACTION_SUBGROUPS else {}
