"""`tools/submit.py`: training as a job of a cluster.

Hydra composes configs/cluster/ onto ClusterConfig, and its launcher `submitit_slurm` or `submitit_local`
checks what becomes of it; `commands/cluster.py` hands the job over.
"""

import shutil
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from coca_video.cli import load_config, load_launcher
from coca_video.commands.task_runs import load_train_config
from coca_video.commands.train import main as train_main
from coca_video.errors import InputError

FOLDER_NAME = "jobs"  # in the run's folder


class Executor(str, Enum):
    slurm = "slurm"
    local = "local"  # processes of this machine


@dataclass
class ClusterConfig:
    executor: Executor
    nodes: int = 1
    gpus_per_node: int = 0
    tasks_per_node: int | None = None  # default: one for each GPU, or one
    cpus_per_task: int | None = None  # of which data.num_workers decode
    mem_gb: int | None = None  # of each node; default: the partition's
    minutes: int = 60  # time limit; the job is then queued again
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    signal_seconds: int = 120  # before the time limit: training is told to save. More than a step and a save
    max_timeouts: int = 1000  # how often the time limit queues it again; preemptions do not count
    name: str | None = None  # default: of the run's folder
    folder: str | None = None  # of logs, on a disk that all nodes see; default: jobs/ in the run's folder
    setup: list[str] = field(default_factory=list)  # lines of bash before srun: module load cuda
    sbatch: list[str] = field(default_factory=list)  # further options of sbatch: ['--exclude=node7']
    srun: list[str] = field(default_factory=list)  # further options of srun: ['--cpu-bind=none']
    wait: bool = False  # for the job's end
    dry_run: bool = False  # write the script to stdout, submit nothing

    def __post_init__(self) -> None:
        for name in ("nodes", "tasks_per_node", "cpus_per_task", "mem_gb", "minutes", "signal_seconds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"cluster.{name} must be at least 1, got {value}")
        for name in ("gpus_per_node", "max_timeouts"):
            if getattr(self, name) < 0:
                raise ValueError(f"cluster.{name} must not be negative, got {getattr(self, name)}")
        for option in [*self.sbatch, *self.srun]:
            if not option.startswith("--"):
                raise ValueError(
                    f"cluster.sbatch and cluster.srun take options like --exclude=node7, got {option}"
                )
        if self.signal_seconds >= 60 * self.minutes:
            limit = f"cluster.minutes={self.minutes}"
            raise ValueError(f"cluster.signal_seconds must be less than {limit}, got {self.signal_seconds}")
        if self.executor is Executor.local and (self.nodes > 1 or self.dry_run):
            found = f"cluster.nodes={self.nodes} cluster.dry_run={str(self.dry_run).lower()}"
            raise ValueError(f"cluster.executor=local has one node and no script to show, got {found}")

    @property
    def num_tasks_per_node(self) -> int:
        return self.tasks_per_node or max(self.gpus_per_node, 1)


@dataclass
class SubmitConfig:
    cluster: ClusterConfig


def main() -> int:
    of_cluster, of_training = split(sys.argv[1:])
    config = load_config(SubmitConfig, "submit", of_cluster).cluster
    train_config = load_train_config(of_training)  # a mistake is found before the queue
    _check_slurm_is_here(config)
    try:
        from coca_video.commands import cluster
    except ModuleNotFoundError as error:
        hint = "pip install 'coca-video[slurm]'"
        raise InputError(f"cluster: {error.name} is not installed; {hint}") from error

    parameters = launcher_parameters(config, Path(train_config.output))
    if config.dry_run:
        print(cluster.script(parameters, srun=config.srun))
        return 0
    training = cluster.Training(train_main, of_training)
    job = cluster.submit(training, config.executor.value, parameters, srun=config.srun)
    print(f"job {job.job_id}: submitted; its log is {job.paths.stdout}", flush=True)
    if config.wait:
        cluster.wait(job)
    return 0


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The settings of the cluster, and those of training."""
    of_cluster = [each for each in arguments if each.split("=")[0].split(".")[0] == "cluster"]
    return of_cluster, [each for each in arguments if each not in of_cluster]


def launcher_parameters(config: ClusterConfig, output: Path) -> dict[str, Any]:
    """As hydra's launcher has them, those without a value left out; `output`: the run's folder."""
    settings = {
        "submitit_folder": str(config.folder or output / FOLDER_NAME) + "/%j",  # the job's number
        "name": config.name or output.name,
        "nodes": config.nodes,
        "tasks_per_node": config.num_tasks_per_node,
        "gpus_per_node": config.gpus_per_node or None,
        "cpus_per_task": config.cpus_per_task,
        "mem_gb": config.mem_gb,
        "timeout_min": config.minutes,
        "stderr_to_stdout": True,
    }
    if config.executor is Executor.slurm:
        settings |= _slurm_settings(config)
    parameters = load_launcher(f"submitit_{config.executor.value}", settings)
    return {key: value for key, value in parameters.items() if value is not None}


def _slurm_settings(config: ClusterConfig) -> dict[str, Any]:
    """USR1 goes to all tasks, and asks training to save and submitit to queue the job again."""
    setup = [
        *config.setup,
        "export SUBMITIT_PREEMPT_SIGNAL=USR1",
        "export SLURM_KILL_BAD_EXIT=1",  # a task that fails ends those that would wait for it
    ]
    if config.cpus_per_task:  # since 22.05 srun no longer takes it from sbatch
        setup.append(f"export SRUN_CPUS_PER_TASK={config.cpus_per_task}")
    return {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "max_num_timeout": config.max_timeouts,
        "setup": setup,
        "additional_parameters": {
            "signal": f"USR1@{config.signal_seconds}",
            "requeue": True,
            **dict(_name_and_value(option) for option in config.sbatch),
        },
    }


def _name_and_value(option: str) -> tuple[str, str | bool]:
    name, _, value = option.removeprefix("--").partition("=")
    return name, value or True


def _check_slurm_is_here(config: ClusterConfig) -> None:
    if config.executor is not Executor.slurm or config.dry_run:
        return
    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            hint = "run this on the cluster, or see its script with cluster.dry_run=true"
            raise InputError(f"cluster.executor=slurm: there is no {command} here; {hint}")
