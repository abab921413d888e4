import pytest
from copies import write_texts, write_videos
from spoiling import HARMLESS, replace
from video_sets import read_set

from coca_video.data.benchmarks.kinetics import OVERLAP, SETS
from coca_video.data.benchmarks.listing import Files, MissingAnnotation
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.errors import InputError

K400, K600, K700 = SETS
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
VAL = (
    HEADER
    + "massaging person's head,-3B32lodo2M,59,69,val,0\n"
    + '"abseiling",0wR5jVB-WPk,417.0,427.0,val,1\n'
    + "air drumming,aaaaaaaaaaa,1,11,val,0\n"
)
MASSAGE, ABSEILING, DRUMMING = (
    "-3B32lodo2M_000059_000069",
    "0wR5jVB-WPk_000417_000427",
    "aaaaaaaaaaa_000001_000011",
)


@pytest.fixture
def root(tmp_path):
    """CVDF's layout; the third clip cannot be had any more."""
    write_texts(tmp_path, {"annotations/val.csv": VAL, "annotations/train.csv": VAL})
    write_videos(tmp_path, f"val/{MASSAGE}.mp4", f"val/{ABSEILING}.mp4")
    return tmp_path


def labels_of(listing):
    return {record.id: record.labels["class"] for record in listing.records}


def test_cvdf(root):
    listing = read_set(K400, root, "val")
    assert [(record.id, record.text, record.labels, record.span) for record in listing.records] == [
        (MASSAGE, "massaging person's head", {"class": "massaging person's head"}, []),
        (ABSEILING, "abseiling", {"class": "abseiling"}, []),
    ]
    assert listing.records[0].path == root / "val" / f"{MASSAGE}.mp4"
    assert listing.missing == [DRUMMING]
    assert listing.classes == class_list("kinetics400").names
    assert listing.annotations == [root / "annotations/val.csv"]
    assert any("holds 3 of the 400 classes" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("public_set", "split", "is_told"),
    [(K400, "val", True), (K400, "train", False), (K700, "val", False), (K700, "train", True)],
)
def test_the_overlap_of_400_and_700_is_told(root, public_set, split, is_told):
    assert (OVERLAP in public_set.read(Files(root, root), split).notes) == is_told


@pytest.mark.parametrize(
    "spelling", ["val.csv", "validate.csv", "kinetics_700_val.csv", "k700_2020_validate.csv"]
)
def test_spellings_of_the_table_and_the_folder(root, spelling):
    (root / "annotations/val.csv").rename(root / spelling)
    (root / "val").rename(root / "validate")
    assert list(labels_of(read_set(K700, root, "val"))) == [MASSAGE, ABSEILING]


@pytest.mark.parametrize(
    "names", [("-3B32lodo2M", "0wR5jVB-WPk"), ("-3B32lodo2M_59_69", "0wR5jVB-WPk_417_427")]
)
def test_other_names_of_the_files(root, names):
    for published, name in zip((MASSAGE, ABSEILING), names, strict=True):
        (root / f"val/{published}.mp4").rename(root / f"val/{name}.mp4")
    assert list(labels_of(read_set(K400, root, "val"))) == [MASSAGE, ABSEILING]


def test_a_file_called_by_its_youtube_id_is_none_of_two_clips(root):
    (root / f"val/{MASSAGE}.mp4").rename(root / "val/-3B32lodo2M.mp4")
    path = root / "annotations/val.csv"
    path.write_text(path.read_text() + "massaging person's head,-3B32lodo2M,79,89,val,0\n")
    assert read_set(K400, root, "val").missing == [MASSAGE, DRUMMING, "-3B32lodo2M_000079_000089"]


def test_another_clip_of_the_same_video_is_no_replacement(root):
    (root / f"val/{MASSAGE}.mp4").rename(root / "val/-3B32lodo2M_000100_000110.mp4")
    assert MASSAGE in read_set(K400, root, "val").missing


def test_replacements_win_over_damaged_originals(root):
    again = root / "replacement/replacement_for_corrupted_k400"
    write_videos(again, f"{MASSAGE}.mp4")
    (root / f"val/{MASSAGE}.mp4").write_bytes(b"")
    listing = read_set(K400, root, "val")
    assert [record.path.parent for record in listing.records] == [again, root / "val"]
    assert any("in place of damaged originals: 1" in note for note in listing.notes)


def test_kinetics_600_prefers_its_complete_txt(root):
    more = VAL + "archery,bbbbbbbbbbb,2,12,val,0\n"
    write_texts(root, {"annotations/val.txt": more})
    listing = read_set(K600, root, "val")
    assert listing.num_listed == 4 and not any("incomplete" in note for note in listing.notes)
    (root / "annotations/val.txt").unlink()
    listing = read_set(K600, root, "val")
    assert listing.num_listed == 3 and any("incomplete" in note for note in listing.notes)


def test_class_folders_with_a_table(root):
    for name, folder in ((MASSAGE, "massaging_persons_head"), (ABSEILING, "abseiling")):
        (root / "val" / folder).mkdir()
        (root / f"val/{name}.mp4").rename(root / f"val/{folder}/{name}.mp4")
    listing = read_set(K400, root, "val")
    assert list(labels_of(listing)) == [MASSAGE, ABSEILING] and listing.missing == [DRUMMING]


def test_class_folders_without_a_table(tmp_path):
    write_videos(tmp_path, f"val/massaging_persons_head/{MASSAGE}.mp4", f"val/air drumming/{DRUMMING}.mp4")
    listing = read_set(K400, tmp_path, "val")
    assert labels_of(listing) == {DRUMMING: "air drumming", MASSAGE: "massaging person's head"}
    assert listing.missing == listing.annotations == []
    assert any("nothing tells which videos are missing" in note for note in listing.notes)


def test_the_folders_of_one_split_are_not_those_of_another(tmp_path):
    """Nor are classes in the root: every split would be the same videos."""
    write_videos(tmp_path, f"val/air drumming/{DRUMMING}.mp4")
    for media, split in ((tmp_path, "train"), (tmp_path / "val", "train"), (tmp_path / "val", "val")):
        with pytest.raises(MissingAnnotation, match=f"{media}: neither .* videos such as {split}/LABEL/ID_"):
            K400.read(Files(media, media), split)


def test_class_folders_are_links(tmp_path):
    write_videos(tmp_path, f"elsewhere/{MASSAGE}.mp4")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/massaging_persons_head").symlink_to(tmp_path / "elsewhere")
    assert list(labels_of(read_set(K400, tmp_path, "val"))) == [MASSAGE]


def test_folders_that_are_no_classes_and_videos_without_folder(tmp_path):
    write_videos(tmp_path, f"val/unsorted/{MASSAGE}.mp4")
    with pytest.raises(InputError, match=r"val/unsorted/.*: 'unsorted' is none of the 400 classes"):
        K400.read(Files(tmp_path, tmp_path), "val")
    (tmp_path / f"val/unsorted/{MASSAGE}.mp4").rename(tmp_path / f"val/{MASSAGE}.mp4")
    with pytest.raises(InputError, match="no table says what this shows"):
        K400.read(Files(tmp_path, tmp_path), "val")


def test_a_list_of_paths_and_indices(root):
    (root / "annotations/val.csv").unlink()
    lines = f"massaging_persons_head/{MASSAGE}.mp4 196\nabseiling/{ABSEILING}.mp4 0\n"
    write_texts(root, {"kinetics400_val_list_videos.txt": lines})
    listing = read_set(K400, root, "val")
    assert labels_of(listing) == {MASSAGE: "massaging person's head", ABSEILING: "abseiling"}

    write_texts(root, {"labels/kinetics_400_labels.csv": "id,name\n196,massaging person's head\n0,zumba\n"})
    listing = read_set(K400, root, "val")
    assert labels_of(listing) == {MASSAGE: "massaging person's head", ABSEILING: "zumba"}
    assert [path.name for path in listing.annotations][1] == "kinetics_400_labels.csv"


def test_a_list_of_paths_alone(root):
    lines = f"massaging person's head/{MASSAGE}.mp4\nabseiling/{ABSEILING}.mp4\n"
    write_texts(root, {"annotations/val.txt": lines})
    assert labels_of(read_set(K600, root, "val")) == {
        MASSAGE: "massaging person's head",
        ABSEILING: "abseiling",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"abseiling/{ABSEILING}.mp4 400", r"val\.txt:1: 400 is no index of the 400 classes"),
        (f"climbing/{ABSEILING}.mp4", r"val\.txt:1: 'climbing' is none of the 400 classes"),
        (f"{ABSEILING}.mp4", r"val\.txt:1: expected 'path index' or 'LABEL/file\.mp4'"),
    ],
)
def test_wrong_lists_are_named(root, line, message):
    (root / "annotations/val.csv").unlink()
    write_texts(root, {"val.txt": f"{line}\n"})
    with pytest.raises(InputError, match=message):
        K400.read(Files(root, root), "val")


@pytest.mark.parametrize("spoil", HARMLESS)
def test_other_systems_files_read_the_same(root, spoil):
    before = read_set(K400, root, "val")
    spoil(root / "annotations/val.csv")
    assert read_set(K400, root, "val") == before


def test_repeated_rows_count_once(root):
    path = root / "annotations/val.csv"
    path.write_text(
        path.read_text() + "abseiling,0wR5jVB-WPk,417,427,val,1\narchery,-3B32lodo2M,59,69,val,0\n"
    )
    listing = read_set(K400, root, "val")
    assert listing.num_listed == 3 and labels_of(listing)[MASSAGE] == "massaging person's head"
    assert any(f"1 listed twice: {ABSEILING}" in note for note in listing.notes)
    assert any(
        f"1 listed again with other contents; the first counts: {MASSAGE}" in note for note in listing.notes
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("youtube_id", "video", r"val\.csv: lacks the column 'youtube_id'; it has label, video, time_start"),
        ("time_start", "start", r"val\.csv: lacks the column 'time_start'; it has label, youtube_id, start"),
        ("label,", "class,", r"val\.csv: this split has no labels"),
        ("air drumming", "air guitar", r"val\.csv:4: 'air guitar' is none of the 400 classes of kinetics400"),
        ('"abseiling"', "", r"val\.csv:3: the label is empty"),
        ("aaaaaaaaaaa", "", r"val\.csv:4: youtube_id is empty"),
        (",59,", ",soon,", r"val\.csv:2: time_start must be a number of seconds, found 'soon'"),
        (",69,", ",inf,", r"val\.csv:2: time_end must be a number of seconds, found 'inf'"),
        (",69,val", "", r"val\.csv:2: expected 6 fields, found 4"),
        (VAL, HEADER, r"val\.csv: lists nothing of this split"),
    ],
)
def test_wrong_tables_are_named(root, old, new, message):
    replace(root / "annotations/val.csv", old, new)
    with pytest.raises(InputError, match=message):
        K400.read(Files(root, root), "val")


def test_unknown_split_no_videos_and_nothing_at_all(root, tmp_path):
    with pytest.raises(InputError, match="no split 'validate'; this set has train, val, test"):
        K400.read(Files(root, root), "validate")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=rf"empty: none of the 3 files listed is here, such as {MASSAGE}\.mp4"
    ):
        K400.read(Files(root, tmp_path / "empty"), "val")
    with pytest.raises(
        InputError, match="empty: neither an annotation file nor videos such as val/LABEL/ID_"
    ):
        K400.read(Files(tmp_path / "empty", tmp_path / "empty"), "val")
