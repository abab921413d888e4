"""CoCa (Contrastive Captioners) for pictures and video."""

__version__ = "0.1.0"
