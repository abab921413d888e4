from pathlib import Path

import pytest
from videos import coloured_frames, save_video


@pytest.fixture(scope="session")
def coloured_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of 40 frames, 64 x 48 pixels, 10 a second; `videos.seen` tells them apart."""
    return save_video(tmp_path_factory.mktemp("videos") / "coloured.mp4", coloured_frames(40), fps=10)
