"""The main job, end to end: pictures -> video -> zero-shot, retrieval and captions -> one HTML page.

    python tools/demo.py

Runs the commands that a user would, and prints them. Data and training that are finished are not done again.
"""

from coca_video.cli import run
from coca_video.commands.demo import main

if __name__ == "__main__":
    run(main)
