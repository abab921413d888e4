import pytest
from results import make_result, save_result

from coca_video.errors import InputError
from coca_video.evaluation.results import find_results


def test_results_are_found_below_folders_once(tmp_path):
    for name in ("b", "a/deep/er"):
        save_result(tmp_path / name, make_result())
    old = save_result(tmp_path / "old", {"benchmark": "emoji", "actions": {}})
    newer = save_result(tmp_path / "newer", make_result() | {"format": 2})
    listed = save_result(tmp_path / "list", [1])
    results, passed_over = find_results([tmp_path / "b" / "result.json", tmp_path])
    assert [result.name for result in results] == [f"{tmp_path}/b", f"{tmp_path}/a/deep/er"]
    assert passed_over == [
        f"{listed}: is not a result",
        f"{newer}: has format 2",
        f"{old}: has no format, as results of earlier versions",
    ]


@pytest.mark.parametrize(
    "content, said", [({"actions": {}}, "has no format"), ({"format": 2}, "has format 2")]
)
def test_another_format_is_refused_if_named(tmp_path, content, said):
    path = save_result(tmp_path, content)
    with pytest.raises(InputError, match=rf"result\.json: {said}.*; format 1 is needed$"):
        find_results([path])


def test_where_there_is_no_result(tmp_path):
    with pytest.raises(InputError, match="gone: no such file or folder"):
        find_results([tmp_path / "gone"])
    save_result(tmp_path / "old", {})
    with pytest.raises(InputError, match=rf"{tmp_path}: no result.json of format 1 here; passed over: 1"):
        find_results([tmp_path])


def test_broken_json_is_named(tmp_path):
    (tmp_path / "result.json").write_text('{"format": 1,')
    with pytest.raises(InputError, match=r"result\.json: cannot read this result: Expecting"):
        find_results([tmp_path])


@pytest.mark.parametrize(
    "key, said",
    [
        ("official", "has no 'official'"),
        ("model.sha256", r"has no 'model\.sha256'"),
        ("model", r"has no 'model\.checkpoint'"),
        ("tasks.classification.num_evaluated", r"has no 'tasks\.classification\.num_evaluated'"),
        ("tasks.classification.templates", r"has no 'tasks\.classification\.templates\.sets'"),
        ("tasks.classification", "tasks must be of classification, retrieval, captioning, head, got none"),
    ],
)
def test_missing_keys_are_named(tmp_path, key, said):
    result = make_result()
    *before, last = key.split(".")
    place = result
    for part in before:
        place = place[part]
    del place[last]
    save_result(tmp_path, result)
    with pytest.raises(InputError, match=rf"result\.json: {said}"):
        find_results([tmp_path])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"official": "yes"}, "'official' must be bool, got 'yes'"),
        ({"num_missing": True}, "'num_missing' must be int, got True"),
        ({"num_expected": "1000"}, "'num_expected' must be int or null, got '1000'"),
        ({"tasks": []}, r"'tasks' must be dict, got \[\]"),
        ({"tasks": {"classification": 3}}, r"has no 'tasks\.classification\.num_evaluated'"),
        ({"tasks": {"dancing": {}}}, "tasks must be of .*, captioning, head, got dancing"),
        ({"failed": ["x"]}, "failed must hold objects with id and reason, got 'x'"),
    ],
)
def test_values_of_another_kind_are_named(tmp_path, changes, said):
    save_result(tmp_path, make_result() | changes)
    with pytest.raises(InputError, match=rf"result\.json: {said}"):
        find_results([tmp_path])
