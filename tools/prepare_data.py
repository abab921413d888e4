"""Makes manifests of a public data set or of one's own, and says what is missing; `emoji` is fetched.

    python tools/prepare_data.py emoji --root data/emoji --packs 1 3
    python tools/prepare_data.py kinetics400 --root /data/kinetics400

An interrupted run can be started again; what is finished is kept.
"""

from coca_video.cli import run
from coca_video.commands.prepare import main

if __name__ == "__main__":
    run(main)
