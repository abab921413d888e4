import pytest
from picture_files import save_pictures
from spoiling import HARMLESS
from video_sets import read_set, save_json, texts

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.nocaps import SETS
from coca_video.errors import InputError

(NOCAPS,) = SETS
NAMES = ["0013ea2087020901", "00a1", "-b"]
DOMAINS = ["in-domain", "near-domain", "out-domain"]


def content(*domains: object) -> dict:
    images = [
        {"id": i, "open_images_id": name, "file_name": f"{name}.jpg", "domain": domain}
        for i, (name, domain) in enumerate(zip(NAMES, domains))
    ]
    captions = [{"id": i, "image_id": i % 3, "caption": f"text, {i}"} for i in range(2 * len(domains))]
    return {"info": {}, "images": images, "annotations": captions}


@pytest.fixture
def root(tmp_path):
    save_json(tmp_path / "nocaps_val_4500_captions.json", content(*DOMAINS))
    save_pictures(tmp_path / "validation", *(f"{name}.jpg" for name in NAMES))
    return tmp_path


def test_domains_are_parts(root):
    listing = read_set(NOCAPS, root, "val")
    assert texts(listing) == {str(i): [f"text, {i}", f"text, {i + 3}"] for i in range(3)}
    assert [record.labels for record in listing.records] == [{"domain": domain} for domain in DOMAINS]
    assert listing.subsets == {"domain=in-domain": 648, "domain=near-domain": 2938, "domain=out-domain": 914}
    assert sum(listing.subsets.values()) == NOCAPS.splits["val"] == 4500


def test_another_spelling_of_a_domain(root):
    save_json(root / "nocaps_val_4500_captions.json", content(*DOMAINS[:2], "out-of-domain"))
    assert read_set(NOCAPS, root, "val").records[2].labels == {"domain": "out-domain"}


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = read_set(NOCAPS, root, "val")
    spoil(root / "nocaps_val_4500_captions.json")
    assert read_set(NOCAPS, root, "val") == before


@pytest.mark.parametrize("domain", [None, "indomain", 3, []])
def test_unknown_domains(root, domain):
    save_json(root / "nocaps_val_4500_captions.json", content("in-domain", domain, "out-domain"))
    with pytest.raises(
        InputError, match="captions.json: image 1: the domain is .*, expected one of in-domain"
    ):
        NOCAPS.read(Files(root, root), "val")


def test_what_is_not_there(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    (root / f"validation/{NAMES[1]}.jpg").unlink()
    assert read_set(NOCAPS, root, "val").missing == ["1"]
    with pytest.raises(InputError, match=f"{empty}: none of the 3 files .* such as {NAMES[0]}.jpg"):
        NOCAPS.read(Files(root, empty), "val")
    with pytest.raises(InputError, match="no split 'test'; this set has val"):
        NOCAPS.read(Files(root, root), "test")
    save_json(root / "nocaps_val_4500_captions.json", content(*DOMAINS) | {"annotations": []})
    with pytest.raises(InputError, match="this split has no captions"):
        NOCAPS.read(Files(root, root), "val")
