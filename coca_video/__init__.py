"""CoCa (Contrastive Captioners) for pictures and video: `coca_video.load("path or hub id")`."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load` on first use: importing the package alone does not import torch."""
    if name == "load":
        from coca_video.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
