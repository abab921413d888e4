import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from checkpointing import ABOUT, assert_equal
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from coca_video.checkpoint import checkpoint_path
from coca_video.errors import InputError
from coca_video.training.checkpoints import Checkpoints
from coca_video.training.state_folder import load_state

STATE = {
    "model": {"a.b": torch.arange(12.0).reshape(3, 4), "a": {"b": torch.tensor(7, dtype=torch.int16)}},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "param_groups": [{"betas": (0.1, 0.9)}]},
    "values": [None, True, 1, 0.1, 1e300, float("inf"), "text", [], {}, (), [torch.ones(2).bfloat16(), "x"]],
    "random": torch.random.get_rng_state(),
    "empty": torch.zeros(0, 3),
}


@pytest.fixture
def saved(tmp_path) -> Path:
    with Checkpoints(tmp_path, keep_last=1) as checkpoints:
        checkpoints.save(1, state=STATE, weights={}, about=ABOUT)
    return checkpoint_path(tmp_path, 1)


def refusal(path: Path, into: dict | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_state(path, into)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_everything_comes_back_as_it_was(saved):
    assert_equal(load_state(saved), STATE)


def test_tensors_take_up_their_values_in_place(saved):
    weight = torch.zeros(3, 4).requires_grad_()
    wide = torch.zeros(2, 3, 6)
    into = {"model": {"a.b": weight}, "empty": wide[0, :0, :3], "values": [0] * 11, "not saved": 3}
    loaded = load_state(saved, into)
    assert loaded["model"]["a.b"] is weight and torch.equal(weight, STATE["model"]["a.b"])
    assert loaded["values"][:10] == STATE["values"][:10] and "not saved" not in loaded


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.zeros(4, 3), "its model/a.b is 3 x 4 of float32, the run's is 4 x 3 of float32"),
        (torch.tensor(3), "its model/a.b is 3 x 4 of float32, the run's is a single number of int64"),
        (torch.zeros(3, 4).half(), "its model/a.b is 3 x 4 of float32, the run's is 3 x 4 of float16"),
    ],
)
def test_another_tensor(saved, tensor, found):
    assert refusal(saved, {"model": {"a.b": tensor}}) == f"{saved / 'state'}: {found}"


def test_a_tensor_that_was_not_saved(saved):
    message = refusal(saved, {"model": {"c": torch.zeros(1)}})
    assert message == f"{saved / 'state'}: has no model/c, which the run has"


@pytest.mark.parametrize("name", [".metadata", "values.json", "__0_0.distcp"])
@pytest.mark.parametrize("num_bytes", [None, 0, 10, 0.5, 0.7])
def test_a_truncated_file(saved, name, num_bytes):
    file = saved / "state" / name
    content = file.read_bytes()
    file.unlink()
    if num_bytes is not None:
        file.write_bytes(content[: int(num_bytes if num_bytes > 1 else num_bytes * len(content))])
    message = refusal(saved)
    assert re.match(
        rf"{file if name != '__0_0.distcp' else file.parent}: missing or damaged \(.+\); ", message
    )


def test_a_spoilt_byte_of_a_tensor(saved):
    """Each tensor carries a checksum."""
    file = saved / "state" / "__0_0.distcp"
    content = bytearray(file.read_bytes())
    place = content.index(STATE["model"]["a.b"].numpy().tobytes())
    content[place + 20] ^= 1
    file.write_bytes(content)
    assert refusal(saved).startswith(f"{saved / 'state'}: missing or damaged (")


class Harm:
    def __reduce__(self):
        return print, ("code of a checkpoint runs",)


@pytest.mark.parametrize("spoilt", [Harm(), {"a": 1}, Metadata({"x": BytesStorageMetadata()}), Path("/tmp")])
def test_an_index_that_could_run_code(saved, spoilt, capsys):
    (saved / "state" / ".metadata").write_bytes(pickle.dumps(spoilt))
    assert refusal(saved).startswith(f"{saved / 'state' / '.metadata'}: missing or damaged (")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("place", ["../other.distcp", "/etc/passwd"])
def test_an_index_of_files_elsewhere(saved, place):
    file = saved / "state" / ".metadata"
    index = pickle.loads(file.read_bytes())
    next(iter(index.storage_data.values())).relative_path = place
    file.write_bytes(pickle.dumps(index))
    assert refusal(saved).startswith(f"{file}: missing or damaged (")


@pytest.mark.parametrize("values", [[], {"tensor": "other"}, {"list": 3}, {"code": []}, {"dict": [[1]]}, {}])
def test_other_values(saved, values):
    file = saved / "state" / "values.json"
    file.write_text(json.dumps({"format": 1, "values": {"dict": [["x", values]]}}))
    if values != []:
        assert refusal(saved).startswith(f"{file}: missing or damaged (")


def test_another_format(saved):
    file = saved / "state" / "values.json"
    file.write_text(json.dumps({"format": 9, "values": None}))
    assert "(format 9, this version reads 1)" in refusal(saved)


def test_a_checkpoint_of_an_older_version(tmp_path):
    torch.save({"step": 3}, tmp_path / "state.pt")
    assert refusal(tmp_path) == (
        f"{tmp_path / 'state.pt'}: a training state of an older version, no longer read; "
        f"its weights are: start another run with init={tmp_path}"
    )


def test_the_index_names_no_path_of_this_machine(saved, tmp_path):
    assert str(tmp_path).encode() not in (saved / "state" / ".metadata").read_bytes()
