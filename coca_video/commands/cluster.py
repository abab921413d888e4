"""Jobs of a cluster by way of submitit, with what hydra's submitit launcher makes of the settings.

Hydra's launcher itself waits for the job's end, does not tell the job's number, and reports a command that
failed as a job that succeeded. So its parameters are used, and submitit is called here.

How a job goes on after its time: SLURM sends USR1 to every task; training saves after the current step and
ends with `Ending.preempted`; the first task has the job queued again, under its number and with its folder;
once it starts, the same command goes on from the checkpoint.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment, clean_env, environment_variables

from coca_video.cli import exit_code_of
from coca_video.errors import InputError
from coca_video.training.signals import Ending

SIGNAL = signal.SIGUSR1  # submitit's own choice, USR2, would queue the job again with nothing saved


@dataclass
class Training:
    """What each task of a job calls: a training command, joined with the other tasks as by torchrun."""

    main: Callable[[], int | None]
    overrides: list[str]

    def __call__(self) -> None:
        queue_again = signal.getsignal(SIGNAL)  # submitit's; training takes the signal over while it trains
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        sys.argv = ["train", *self.overrides]
        code = exit_code_of(self.main)
        if code == Ending.preempted.exit_code and _may_go_on(submitit.JobEnvironment()):
            queue_again(SIGNAL, None)  # ends the first task; the others end by themselves
        elif code:
            sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit starts when the job's turn comes again."""
        return DelayedSubmission(self)


def _may_go_on(job: submitit.JobEnvironment) -> bool:
    """Not so for a job that was cancelled: it is about to end, and would come back from the dead.

    One that SLURM preempts at once, without grace, is about to end too, and queued again by SLURM.
    """
    if job.cluster != "slurm" or job.global_rank != 0:
        return True
    command = ["squeue", "--noheader", "--jobs", job.job_id, "--format", "%T"]
    try:
        state = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return True
    return state not in ("COMPLETING", "CANCELLED")


class _Slurm(submitit.SlurmExecutor):
    def __init__(self, parameters: dict[str, Any], *, srun: list[str]) -> None:
        own = dict(parameters)
        super().__init__(own.pop("submitit_folder"), max_num_timeout=own.pop("max_num_timeout"))
        self.update_parameters(**self._convert_parameters(own), srun_args=srun)

    @classmethod
    def affinity(cls) -> int:
        """A script can be made where no SLURM is."""
        return 1

    def script(self) -> str:
        return self._make_submission_file_text(self._submitit_command_str, uid="")


def script(parameters: dict[str, Any], *, srun: list[str]) -> str:
    """What sbatch would be given."""
    return _Slurm(parameters, srun=srun).script()


def submit(
    training: Training, executor: str, parameters: dict[str, Any], *, srun: list[str]
) -> submitit.Job[None]:
    """Queues a job with the parameters of hydra's launcher; `executor`: slurm or local.

    Raises InputError for what sbatch refuses.
    """
    with clean_env(), environment_variables(SUBMITIT_PREEMPT_SIGNAL=SIGNAL.name.removeprefix("SIG")):
        try:
            if executor == "slurm":
                return _Slurm(parameters, srun=srun).submit(training)
            return _local(parameters).submit(training)
        except FailedJobError as error:
            raise InputError(f"sbatch: {' '.join(str(error).split())}") from error


def _local(parameters: dict[str, Any]) -> submitit.LocalExecutor:
    own = dict(parameters)
    executor = submitit.LocalExecutor(own.pop("submitit_folder"))
    executor.update_parameters(**own)
    return executor


def wait(job: submitit.Job[None]) -> None:
    """Raises InputError, with the last line of its log, for a job that has failed."""
    for task in [job.task(i) for i in range(job.num_tasks)]:
        if task.exception() is not None:  # waits
            lines = (task.stdout() or "").split("\n") if task.paths.stdout.exists() else []
            last = next((line for line in reversed(lines) if line.strip()), "nothing")
            raise InputError(f"{task.paths.stdout}: the job has failed; its last line: {last}")
