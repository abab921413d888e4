"""Writes a video's caption and a caption for each sampled frame.

python tools/caption.py clip.mp4 --format webvtt
"""

from coca_video.cli import run
from coca_video.commands.caption import main

if __name__ == "__main__":
    run(main)
