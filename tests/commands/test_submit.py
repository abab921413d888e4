import os
import re
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import submitted
from datasets import mixed_arguments, refusal
from processes import in_processes
from runs import assert_same_runs

from coca_video.cli import load_launcher
from coca_video.commands.submit import ClusterConfig, Executor, launcher_parameters, main, split
from coca_video.errors import InputError
from coca_video.run_log import read_log

RECIPE = "recipe=emoji/image"
REPOSITORY = Path(__file__).parents[2]


def have_submitit():
    pytest.importorskip("submitit")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")


@pytest.fixture
def cluster(monkeypatch):
    """commands/cluster.py; jobs find the package and the tests' helpers."""
    have_submitit()
    import submitit

    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)  # no network's disk that shows files late
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]))
    from coca_video.commands import cluster

    return cluster


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["submit", *arguments])
    return main()


def shown_script(monkeypatch, capsys, *settings: str) -> list[str]:
    have_submitit()
    assert call(monkeypatch, "cluster=slurm", "cluster.dry_run=true", RECIPE, *settings) == 0
    return capsys.readouterr().out.splitlines()


def test_the_script_for_sbatch(monkeypatch, capsys, tmp_path):
    lines = shown_script(
        monkeypatch,
        capsys,
        f"output={tmp_path}/tulips",
        "cluster.nodes=2",
        "cluster.gpus_per_node=4",
        "cluster.cpus_per_task=6",
        "cluster.mem_gb=100",
        "cluster.minutes=90",
        "cluster.signal_seconds=200",
        "cluster.partition=gpu",
        "cluster.account=botany",
        "cluster.qos=high",
        "cluster.constraint=h100",
        "cluster.sbatch=['--exclude=node7', '--exclusive']",
        "cluster.srun=['--cpu-bind=none']",
        "cluster.setup=[module load cuda]",
    )
    log = f"{tmp_path}/tulips/jobs/%j/%j_0_log.out"
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert options == {
        *("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=6", "mem=100GB", "time=90"),
        *("partition=gpu", "account=botany", "qos=high", "constraint=h100", "exclude=node7", "exclusive"),
        *("signal=USR1@200", "requeue", "job-name=tulips", f"output={log}", "open-mode=append"),
        "wckey=submitit",
    }
    setup = ["module load cuda", "export SUBMITIT_PREEMPT_SIGNAL=USR1", "export SLURM_KILL_BAD_EXIT=1"]
    first = lines.index(setup[0])
    assert lines[first : first + 4] == [*setup, "export SRUN_CPUS_PER_TASK=6"]
    (srun,) = [shlex.split(line) for line in lines if line.startswith("srun")]
    assert srun[:4] == ["srun", "--unbuffered", "--output", log.replace("_0_", "_%t_")]
    assert srun[4:6] == ["--cpu-bind=none", sys.executable] and srun[-1] == f"{tmp_path}/tulips/jobs/%j"
    assert not list(tmp_path.iterdir())


def test_a_script_of_defaults(monkeypatch, capsys, tmp_path):
    lines = shown_script(monkeypatch, capsys, f"output={tmp_path}/x", "cluster.folder=logs", "cluster.name=a")
    assert {"#SBATCH --job-name=a", "#SBATCH --ntasks-per-node=8", "#SBATCH --requeue"} <= set(lines)
    assert f"#SBATCH --output={Path.cwd()}/logs/%j/%j_0_log.out" in lines
    assert not any("partition" in line or "mem" in line for line in lines)


def test_settings_are_shared_out():
    arguments = ["cluster=slurm", RECIPE, "cluster.nodes=2", "loop.seed=1", "output='cluster.x'"]
    assert split(arguments) == (
        ["cluster=slurm", "cluster.nodes=2"],
        [RECIPE, "loop.seed=1", "output='cluster.x'"],
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([RECIPE], "cluster= is missing; the choices are local, slurm"),
        (["cluster=lsf", RECIPE], "cluster=lsf: there is no such cluster; the choices are local, slurm"),
        (["cluster=slurm"], "recipe= is missing; the choices are "),
        (
            ["cluster=slurm", RECIPE, "loop.num_step=3"],
            "loop.num_step: there is no such key; did you mean num_steps?",
        ),
        (
            ["cluster=slurm", RECIPE, "cluster.node=3"],
            "cluster.node: there is no such key; did you mean nodes?",
        ),
        (["cluster=slurm", RECIPE, "cluster.nodes=0"], "cluster.nodes must be at least 1, got 0"),
        (
            ["cluster=slurm", RECIPE, "cluster.gpus_per_node=-1"],
            "cluster.gpus_per_node must not be negative, got -1",
        ),
        (
            ["cluster=slurm", RECIPE, "cluster.minutes=5"],
            "cluster.signal_seconds must be less than cluster.minutes=5, got 300",
        ),
        (
            ["cluster=local", RECIPE, "cluster.nodes=2"],
            "cluster.executor=local has one node and no script to show, ",
        ),
        (
            ["cluster=slurm", RECIPE],
            "cluster.executor=slurm: there is no sbatch here; run this on the cluster, or ",
        ),
    ],
)
def test_refusals(arguments, expected, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = refusal(main, *arguments, capsys=capsys)
    assert found.startswith(expected) and "\n" not in found.strip()


def test_without_the_packages(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "coca_video.commands.cluster", raising=False)
    monkeypatch.delattr("coca_video.commands.cluster", raising=False)
    found = refusal(main, "cluster=slurm", "cluster.dry_run=true", RECIPE, capsys=capsys)
    assert found.strip() == "cluster: submitit is not installed; pip install 'coca-video[slurm]'"


def test_a_launcher_that_is_not_installed():
    with pytest.raises(
        InputError, match="hydra/launcher=submitit_x: is not installed; pip install 'coca-video.sl"
    ):
        load_launcher("submitit_x", {})


def test_a_setting_that_the_launcher_does_not_have():
    have_submitit()
    with pytest.raises(InputError, match="hydra/launcher=submitit_slurm: Key 'nods' not in 'SlurmQueueConf'"):
        load_launcher("submitit_slurm", {"nods": 2})


def until(condition, *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def local_parameters(tmp_path: Path, *, tasks: int) -> dict:
    config = ClusterConfig(Executor.local, tasks_per_node=tasks, minutes=5)
    return launcher_parameters(config, tmp_path / "run")


def preempt(output: Path) -> None:
    """As SLURM does: all tasks of the job, in the middle of training."""
    until(lambda: (output / "log.jsonl").exists() and len(read_log(output)) >= 3)
    (job,) = [folder.name for folder in (output / "jobs").glob("[0-9]*")]
    tasks = subprocess.run(["pgrep", "-P", job], capture_output=True, text=True).stdout.split()
    assert len(tasks) == 2
    for task in tasks:
        os.kill(int(task), signal.SIGUSR1)


@pytest.mark.slow
def test_training_goes_on_after_preemption(cluster, emoji_root, tmp_path, monkeypatch, capsys):
    """By two processes: bit for bit the run that nobody interrupted."""
    outputs = [tmp_path / "preempted", tmp_path / "unbroken"]
    ours, theirs = ([*mixed_arguments(emoji_root, path), "loop.num_steps=40"] for path in outputs)
    with ThreadPoolExecutor() as other:
        preempted = other.submit(preempt, outputs[0])
        assert call(monkeypatch, "cluster=local", "cluster.tasks_per_node=2", *ours) == 0
        preempted.result()
    log = Path(capsys.readouterr().out.split()[-1])
    said = log.read_text()
    reached = int(re.search(r"stopped and saved after step (\d+)\n", said)[1])
    assert 3 <= reached < 40 and "Requeued job" in said and "finished after step 40\n" in said
    in_processes(tmp_path, partial(submitted.train, theirs))
    assert_same_runs(*outputs)


def test_a_job_that_fails_says_why(cluster, tmp_path):
    training = cluster.Training(submitted.refuse, ["key"])
    job = cluster.submit(training, "local", local_parameters(tmp_path, tasks=1), srun=[])
    with pytest.raises(InputError) as caught:
        cluster.wait(job)
    assert str(caught.value) == f"{job.paths.stdout}: the job has failed; its last line: error: key: is bad"


# A SLURM of one machine: sbatch starts the script at once as job 7, the state and the calls are files.
SBATCH = """#!/bin/bash
echo "Submitted batch job 7"
export SLURM_JOB_ID=7 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1
export SLURM_JOB_NODELIST=localhost
(sleep 0.3; bash "$1"; echo $? > {here}/ended) > /dev/null 2>&1 &
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --output ]] && {{ log=$2; shift; }}; shift; done
log=${{log//%j/7}}
exec "$@" > "${{log//%t/0}}" 2>&1
"""
SQUEUE = "#!/bin/bash\ncat {here}/state\n"
SCONTROL = '#!/bin/bash\necho "$@" > {here}/called\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The folder of the small SLURM."""
    here = tmp_path / "slurm"
    here.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "squeue": SQUEUE, "scontrol": SCONTROL}.items():
        (here / name).write_text(text.format(here=here))
        (here / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RANK", "5")  # as if submitted from another job
    return here


def test_slurm_is_asked_to_queue_the_job_again(cluster, slurm, tmp_path, monkeypatch, capsys):
    (slurm / "state").write_text("RUNNING\n")
    monkeypatch.setattr("coca_video.commands.submit.train_main", submitted.write_argument_and_be_preempted)
    output = f"output={tmp_path / 'run'}"
    log = tmp_path / "run/jobs/7/7_0_log.out"
    assert call(monkeypatch, "cluster=slurm", RECIPE, output) == 0
    assert capsys.readouterr().out == f"job 7: submitted; its log is {log}\n"
    until((slurm / "ended").exists)
    assert f"trains {RECIPE} as 0 of 1" in log.read_text()
    assert (slurm / "called").read_text() == "requeue 7\n"


def test_a_cancelled_job_is_not_queued_again(cluster, slurm, monkeypatch):
    (slurm / "state").write_text("COMPLETING\n")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # the job sets them: as before in the end
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in dict(re.findall(r"(SLURM_\w+)=(\S+)", SBATCH)).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        cluster.Training(submitted.write_argument_and_be_preempted, [RECIPE])()
    assert ended.value.code == 75 and not (slurm / "called").exists()


def test_what_sbatch_refuses(cluster, slurm, monkeypatch, capsys, tmp_path):
    (slurm / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(InputError, match="^sbatch: sbatch: error: invalid partition"):
        call(monkeypatch, "cluster=slurm", RECIPE, f"output={tmp_path / 'run'}")
