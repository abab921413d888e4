import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import call, make_emoji_root, mixed_arguments, pictures_source, training_arguments
from videos import coloured_frames, save_video

from coca_video.commands.train import main as train_main

# A shell's background job is born with Ctrl-C ignored, and so would be every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indices of shards are kept where this session ends, not in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COCA_VIDEO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def coloured_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of 40 frames, 64 x 48 pixels, 10 a second; `videos.seen` tells them apart."""
    return save_video(tmp_path_factory.mktemp("videos") / "coloured.mp4", coloured_frames(40), fps=10)


@pytest.fixture(scope="session")
def emoji_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `datasets.make_emoji_root`, to be read only."""
    return make_emoji_root(tmp_path_factory.mktemp("emoji"))


@pytest.fixture(scope="session")
def image_run(emoji_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of eight steps on pictures, to be read only."""
    output = tmp_path_factory.mktemp("runs") / "image"
    assert call(train_main, *training_arguments(output, pictures_source(emoji_root))) == 0
    return output


@pytest.fixture(scope="session")
def mixed_run(emoji_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of eight steps on clips and pictures in turn, to be read only."""
    output = tmp_path_factory.mktemp("runs") / "mixed"
    assert call(train_main, *mixed_arguments(emoji_root, output)) == 0
    return output
