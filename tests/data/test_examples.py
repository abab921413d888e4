import pickle

import pytest
import torch
from videos import seen

from coca_video.data.examples import Examples, Resized, load_example
from coca_video.data.manifest import ClipRecord
from coca_video.data.token_cache import TokenCache
from coca_video.data.transforms import Preprocessing
from coca_video.data.views import ViewsConfig
from coca_video.data.workers import Failure, run_killable
from coca_video.errors import InputError


def examples(*records: ClipRecord, **changes) -> Examples:
    settings = {"views": ViewsConfig(num_frames=3), "prepare": Resized(Preprocessing(), 16)}
    return Examples(list(records), **(settings | changes))


def test_frames_at_the_model_s_size(coloured_video):
    example = examples(ClipRecord(coloured_video, "a")).load(0)
    assert example.origin is None and seen(example.views[0]) == [6, 19, 33]
    assert example.views[0].shape == (3, 3, 16, 16) and example.views[0].dtype == torch.uint8


def test_the_same_in_another_process(coloured_video, tmp_path):
    data = examples(ClipRecord(coloured_video, "a"), ClipRecord(tmp_path / "gone.mp4", "b"))
    found = dict(run_killable(load_example, [0, 1], context=data, num_workers=1, timeout=60))
    assert torch.equal(found[0].views[0], data.load(0).views[0])
    assert found[1] == Failure("error", f"{tmp_path}/gone.mp4: no such file")


def test_tokens_are_read_where_they_are_known(coloured_video, tmp_path):
    data = examples(ClipRecord(coloured_video, "a"), cache=TokenCache(tmp_path / "cache", encoder="e"))
    first = pickle.loads(pickle.dumps(data)).load(0)
    assert first.views[0].dtype == torch.uint8
    data.cache.put(first.origin, torch.ones(3, 4, 5))
    again = data.load(0)
    assert again.origin is None and torch.equal(again.views[0], torch.ones(3, 4, 5))
    other = examples(ClipRecord(coloured_video, "a", span=[0.0, 2.0]), cache=data.cache)
    assert other.load(0).origin not in (None, first.origin)


def test_a_missing_file_with_a_cache(tmp_path):
    data = examples(ClipRecord(tmp_path / "a.mp4", "a"), cache=TokenCache(tmp_path / "cache", encoder="e"))
    with pytest.raises(InputError, match="a.mp4: no such file"):
        data.load(0)


def test_what_the_system_refuses_is_one_example_s_failure(coloured_video, tmp_path):
    long = "x" * 300 + ".mp4"
    data = examples(ClipRecord(tmp_path / long, "a"), ClipRecord(coloured_video, "b"))
    found = dict(run_killable(load_example, [0, 1], context=data, num_workers=0, timeout=None))
    assert found[0] == Failure("error", f"{tmp_path / long}: File name too long")
    assert len(found[1].views) == 1
