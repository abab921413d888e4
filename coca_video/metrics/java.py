"""METEOR and SPICE: the programs in an installed pycocoevalcap, run by an installed java.

They are run from here, not by that package's classes: those leave a process behind when something fails, may
wait for ever for one that has died, and download SPICE's models.
"""

import importlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Timer
from typing import BinaryIO

from coca_video.metrics.ptb_tokenizer import tokenize

LONGEST = 3600.0  # seconds a program may take
SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")

Pairs = list[tuple[str, list[str]]]  # caption and references: tokens joined by spaces


class NotComputed(Exception):
    """One line that says why a metric has no figure."""


def java_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, longest: float = LONGEST
) -> tuple[dict[str, float], dict[str, str]]:
    """meteor and spice (0 to 1), and for each of them that could not be computed the reason in one line.

    METEOR 1.5 (Denkowski and Lavie, WMT 2014) and SPICE (arXiv:1607.08822) as the official COCO scorer runs
    them. Nothing is downloaded, and no process outlives the call: one that takes more than `longest` seconds
    is ended. METEOR first reads a table of paraphrases, for ten seconds or more.
    """
    pairs = [
        (_tokenized(text), [_tokenized(r) for r in group]) for text, group in zip(candidates, references)
    ]
    scores, reasons = {}, {}
    for name, metric in {"meteor": _meteor, "spice": _spice}.items():
        try:
            scores[name] = metric(_package(), pairs, longest)
        except NotComputed as reason:
            reasons[name] = str(reason)
    return scores, reasons


def _tokenized(caption: str) -> str:
    return " ".join(tokenize(caption))


def _package() -> Path:
    if not shutil.which("java"):
        raise NotComputed("java is not installed")
    try:
        package = importlib.import_module("pycocoevalcap")
    except ImportError:
        raise NotComputed("pycocoevalcap is not installed") from None
    return Path(next(iter(package.__path__)))


def _meteor(package: Path, pairs: Pairs, longest: float) -> float:
    started = time.monotonic()
    with tempfile.TemporaryFile() as complaints:
        process = _start_meteor(package, complaints)
        timer = Timer(longest, process.kill)
        timer.start()
        try:
            return _converse(process, pairs)
        except (OSError, ValueError):  # it has ended, or wrote what is no number
            if time.monotonic() - started >= longest:
                raise NotComputed(f"METEOR took more than {longest:g} s") from None
            process.kill()
            complaints.seek(0)
            raise NotComputed(_failure("METEOR", process.wait(), complaints.read())) from None
        finally:
            timer.cancel()
            _end(process)


def _start_meteor(package: Path, complaints: BinaryIO) -> subprocess.Popen:
    jar = package / "meteor" / "meteor-1.5.jar"
    command = ["java", "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar)]
    options = ["-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command + options, stdin=pipe, stdout=pipe, stderr=complaints, encoding="utf-8")


def _converse(process: subprocess.Popen, pairs: Pairs) -> float:
    """METEOR answers a caption with statistics, and all of these with a score for each and the corpus's."""
    statistics = [_ask(process, ["SCORE", *group, caption]) for caption, group in pairs]
    _ask(process, ["EVAL", *statistics])
    for _ in pairs[1:]:
        process.stdout.readline()
    return float(process.stdout.readline())


def _ask(process: subprocess.Popen, fields: list[str]) -> str:
    process.stdin.write(" ||| ".join(fields) + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        process.stdin.close()
    except OSError:  # what it has not read is still to be sent
        pass


def _spice(package: Path, pairs: Pairs, longest: float) -> float:
    for model in SPICE_MODELS:
        if not (package / "spice" / "lib" / model).exists():
            raise NotComputed(
                f"SPICE's models are not installed: {model} is missing in pycocoevalcap/spice/lib"
            )
    images = [{"image_id": i, "test": text, "refs": group} for i, (text, group) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder, "captions.json"), Path(folder, "scores.json")
        asked.write_text(json.dumps(images), encoding="utf-8")
        jar = package / "spice" / "spice-1.0.jar"
        command = ["java", "-Dfile.encoding=UTF-8", "-Xmx8G", "-jar", str(jar), str(asked)]
        _run("SPICE", [*command, "-out", str(answer), "-subset", "-silent"], longest)
        judged = json.loads(answer.read_text(encoding="utf-8"))
    return sum(float(image["scores"]["All"]["f"]) for image in judged) / len(judged)


def _run(name: str, command: list[str], longest: float) -> None:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    try:
        done = subprocess.run(command, timeout=longest, **quiet)
    except subprocess.TimeoutExpired:
        raise NotComputed(f"{name} took more than {longest:g} s") from None
    if done.returncode:
        raise NotComputed(_failure(name, done.returncode, done.stderr))


def _failure(name: str, code: int, complaints: bytes) -> str:
    lines = complaints.decode(errors="replace").strip().splitlines()
    return f"{name}'s java ended with {code}: {lines[0] if lines else 'it gave no reason'}"
