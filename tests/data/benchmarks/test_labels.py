import pytest

from coca_video.data.benchmarks.labels import Labels
from coca_video.data.benchmarks.vocabulary import class_list
from coca_video.errors import InputError

SETS = ["kinetics400", "kinetics600", "kinetics700", "moments", "ucf101", "hmdb51", "ssv2"]


@pytest.mark.parametrize("name", SETS)
def test_every_class_is_found_by_id_and_name(name):
    labels, classes = Labels(name), class_list(name)
    for spellings in (classes.ids, classes.names, [each.upper().replace(" ", "_") for each in classes.names]):
        assert [labels.name_of(each, where="here") for each in spellings] == classes.names


def test_an_unknown_and_an_empty_label_are_refused():
    with pytest.raises(InputError, match="file:3: 'sleeping in' is none of the 51 classes of hmdb51"):
        Labels("hmdb51").name_of("sleeping in", where="file:3")
    with pytest.raises(InputError, match="file:3: the label is empty"):
        Labels("hmdb51").name_of("", where="file:3")


def test_absent_classes_are_told(tmp_path):
    labels = Labels("hmdb51")
    assert labels.notes_on(set(labels.names), where=tmp_path) == []
    (note,) = labels.notes_on(set(labels.names) - {"brush hair"}, where=tmp_path)
    assert note.endswith("holds 50 of the 51 classes; all are kept as classes; absent: brush hair")
