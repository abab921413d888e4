"""Trains a model as a job of a cluster; the job is queued again when its time is up or it is preempted.

    python tools/submit.py cluster=slurm cluster.partition=gpu cluster.nodes=2 recipe=emoji/video
    python tools/submit.py cluster=slurm cluster.dry_run=true recipe=emoji/video
    python tools/submit.py cluster=local cluster.tasks_per_node=2 recipe=emoji/image device=cpu

Settings are `key=value`: all that tools/train.py takes, and as cluster.key=value those of ClusterConfig in
coca_video/commands/submit.py.
"""

from coca_video.cli import run
from coca_video.commands.submit import main

if __name__ == "__main__":
    run(main)
