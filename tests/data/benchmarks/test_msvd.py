import pickle

import pytest
from spoiling import HARMLESS
from video_sets import read_set, save_json, save_videos, texts

from coca_video.data.benchmarks.listing import Files
from coca_video.data.benchmarks.msvd import SETS
from coca_video.errors import InputError

(MSVD,) = SETS
SQUIRREL, FISH, ORANGE = "-4wsuPCjDBc_5_15", "mv89psg6zh4_33_46", "_7KMZQEsJW4_205_208"
DESCRIPTIONS = f"""\
# Descriptions of the clips
Each line holds a clip's name and a description.

{SQUIRREL} a squirrel is eating a peanut, in its shell
{SQUIRREL} a chipmunk is eating
{FISH} a bird is bathing in a sink
# a comment
{ORANGE} someone peels an orange
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "AllVideoDescriptions.txt").write_text(DESCRIPTIONS)
    (tmp_path / "train_list.txt").write_text(f"{FISH}\n{SQUIRREL}\n\n")
    (tmp_path / "test_list.txt").write_text(f"{ORANGE}.avi\n")
    save_videos(tmp_path / "YouTubeClips", f"{SQUIRREL}.avi", f"{FISH}.avi", f"{ORANGE}.mp4")
    return tmp_path


def test_captions_from_the_publishers_file(root):
    listing = read_set(MSVD, root, "train")
    assert texts(listing) == {
        FISH: ["a bird is bathing in a sink"],
        SQUIRREL: ["a squirrel is eating a peanut, in its shell", "a chipmunk is eating"],
    }
    assert [record.path.name for record in listing.records] == [f"{FISH}.avi", f"{SQUIRREL}.avi"]
    assert texts(read_set(MSVD, root, "test")) == {ORANGE: ["someone peels an orange"]}


@pytest.mark.parametrize("name", ["raw-captions.json", "msvd_captions.json", "captions.json"])
def test_captions_from_json(root, name):
    (root / "AllVideoDescriptions.txt").unlink()
    captions = {SQUIRREL: ["a squirrel ", ["a", "chipmunk", "eats"]], FISH: ["a bird"]}
    save_json(root / name, captions)
    assert texts(read_set(MSVD, root, "train")) == {
        FISH: ["a bird"],
        SQUIRREL: ["a squirrel", "a chipmunk eats"],
    }


class Bomb:
    """What a pickle can do to whoever reads it."""

    def __reduce__(self):
        return (pytest.fail, ("the pickle was read",))


def test_a_pickle_is_never_read(root):
    (root / "AllVideoDescriptions.txt").unlink()
    (root / "raw-captions.pkl").write_bytes(pickle.dumps(Bomb()))
    message = r"raw-captions\.pkl: a pickle .* give .*AllVideoDescriptions\.txt, or .*raw-captions\.json"
    with pytest.raises(InputError, match=message):
        MSVD.read(Files(root, root), "train")


@pytest.mark.parametrize("spoil", HARMLESS)
def test_harmless_changes_change_nothing(root, spoil):
    before = texts(read_set(MSVD, root, "train"))
    for path in root.glob("*.txt"):
        spoil(path)
    assert texts(read_set(MSVD, root, "train")) == before


def test_repeats_blanks_and_missing_videos_are_told(root):
    (root / "AllVideoDescriptions.txt").write_text(f"{DESCRIPTIONS}gone1234567_1_2 a man\n{FISH}\n")
    (root / "train_list.txt").write_text(f"{FISH}\ngone1234567_1_2\n{FISH}\n")
    listing = read_set(MSVD, root, "train")
    assert texts(listing) == {FISH: ["a bird is bathing in a sink"]} and listing.missing == [
        "gone1234567_1_2"
    ]
    repeated, blank = listing.notes
    assert (
        f"1 listed twice: {FISH}" in repeated and f"1 with a blank text, which is left out: {FISH}" in blank
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "AllVideoDescriptions.txt",
            f"{DESCRIPTIONS}no clip here\n",
            r"\.txt:9: expected a clip's name .*'no clip",
        ),
        (
            "train_list.txt",
            "mv89psg6zh4_1_2\n",
            r"train_list\.txt: AllVideo.* has no caption for 'mv89psg6zh4_1_2'",
        ),
        ("train_list.txt", "\n", r"train_list\.txt: lists nothing of this split"),
    ],
)
def test_what_is_wrong_is_named(root, name, content, message):
    (root / name).write_text(content)
    with pytest.raises(InputError, match=message):
        MSVD.read(Files(root, root), "train")


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([], "expected a JSON object, found a list"),
        ({FISH: "a bird"}, f"{FISH}: expected a list of captions, found 'a bird'"),
        ({FISH: [3]}, f"{FISH}: expected a text, found '3'"),
        ({FISH: [["a", 3]]}, rf"{FISH}: expected a text, found .*'a', 3"),
    ],
)
def test_wrong_json_is_named(root, captions, message):
    (root / "AllVideoDescriptions.txt").unlink()
    save_json(root / "captions.json", captions)
    with pytest.raises(InputError, match=rf"captions\.json: {message}"):
        MSVD.read(Files(root, root), "train")


def test_no_videos_no_captions_and_no_such_split(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match=rf"{empty}: none of the 2 files .* such as {FISH}"):
        MSVD.read(Files(root, empty), "train")
    with pytest.raises(InputError, match="looked for val_list.txt"):
        MSVD.read(Files(root, root), "val")
    (root / "AllVideoDescriptions.txt").unlink()
    with pytest.raises(InputError, match="looked for AllVideoDescriptions.txt"):
        MSVD.read(Files(root, root), "train")
    with pytest.raises(InputError, match="no split 'dev'; this set has train, val, test"):
        MSVD.read(Files(root, root), "dev")
