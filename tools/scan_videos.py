"""Lists the videos of a folder, or of a manifest, that cannot be decoded from end to end.

    python tools/scan_videos.py data/clips --min-frames 8 --workers 4

What was found stands in scan.jsonl; an interrupted scan can be started again and goes on.
"""

from coca_video.cli import run
from coca_video.commands.scan import main

if __name__ == "__main__":
    run(main)
