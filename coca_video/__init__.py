"""CoCa (Contrastive Captioners) for pictures and video: `coca_video.load("path or hub id")`."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """On first use: importing the package alone does not import torch."""
    if name == "load":
        from coca_video.loading import load

        return load
    if name == "as_open_clip":
        from coca_video.open_clip_interface import as_open_clip

        return as_open_clip
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
