"""`tools/demo.py`: the commands of the main job, one after the other, and the report on them."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from coca_video.evaluation.demo_page import write_demo_page
from coca_video.files import write_whole

TOOLS = Path(__file__).parents[2] / "tools"
IMAGE, VIDEO, DEMO = Path("runs/emoji/image"), Path("runs/emoji/video"), Path("runs/demo")
EVALUATED = Path("evaluate/pack3")  # where evaluate.py writes, in a run's folder
STEPS = (
    ("prepare_data.py", "emoji"),
    ("train.py", "recipe=emoji/image"),
    ("evaluate.py", f"checkpoint={IMAGE}", "evaluate=emoji"),
    ("train.py", "recipe=emoji/video", f"init={IMAGE}"),
    ("evaluate.py", f"checkpoint={VIDEO}", "evaluate=emoji"),
)


def main() -> int:
    start = time.monotonic()
    for tool, *arguments in STEPS:
        minutes = (time.monotonic() - start) / 60
        print(f"\n[{minutes:.1f} min] python tools/{tool} {shlex.join(arguments)}", flush=True)
        code = _run([sys.executable, str(TOOLS / tool), *arguments])
        if code:
            return code
    settings = {"transfer": _result(IMAGE), "video": _result(VIDEO)}
    results = {"benchmark": settings["video"]["title"], "settings": settings}
    DEMO.mkdir(parents=True, exist_ok=True)
    write_whole(DEMO / "results.json", json.dumps(results, indent=1) + "\n")
    predictions = (VIDEO / EVALUATED / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    write_demo_page(
        DEMO / "report.html",
        title="coca_video: emoji transfer",
        runs={"pictures": IMAGE, "video": VIDEO},
        results=results,
        predictions=[json.loads(line) for line in predictions],
    )
    print(f"\n[{(time.monotonic() - start) / 60:.1f} min] done\nresults: {DEMO / 'results.json'}")
    print(f"report:  {(DEMO / 'report.html').resolve()}")
    return 0


def _result(run: Path) -> dict:
    return json.loads((run / EVALUATED / "result.json").read_text(encoding="utf-8"))


def _run(command: list[str]) -> int:
    """Ctrl-C is the tool's to answer: `subprocess.run` would kill it a quarter of a second later."""
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return subprocess.run(command).returncode
    finally:
        signal.signal(signal.SIGINT, before)
