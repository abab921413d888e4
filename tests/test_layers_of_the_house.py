"""Which room of the package may import which, and which file alone may import a third party."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "coca_video"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room is a folder or a file of the package; it may always import itself and what is everywhere.
EVERYWHERE = {"errors", "__version__"}
MAY_IMPORT = {
    "__init__": {"loading", "open_clip_interface"},
    "errors": set(),
    "files": set(),
    "run_log": {"files"},
    "ops": set(),
    "layers": {"ops"},
    "models": {"ops", "layers"},
    "losses": {"ops"},
    "metrics": {"ops"},
    "generate": {"ops"},
    "data": {"files", "run_log"},
    "checkpoint": {"layers", "models", "data"},  # weights travel with their tokenizer and preprocessing
    "interop": {"layers", "models"},
    "loading": {"models", "data", "checkpoint", "interop"},
    "open_clip_interface": {"models", "data", "checkpoint"},
    "tasks": {"ops", "layers", "models", "data", "metrics", "generate", "checkpoint"},
    "planning": {"ops", "layers", "models", "files"},  # arithmetic over configurations: no data, no training
    "training": {
        "ops",
        "layers",
        "losses",
        "models",
        "tasks",
        "planning",  # FLOPs of a step
        "data",
        "checkpoint",
        "files",
        "run_log",
    },
    "evaluation": {
        "ops",
        "models",
        "data",
        "metrics",
        "generate",
        "tasks",
        "checkpoint",
        "files",
        "run_log",
    },
    "probes": {"layers", "models", "data", "metrics", "training", "files"},
    "config": {"data", "models", "training", "probes", "evaluation"},
    "cli": set(),
    "benchmarks": {
        "ops",
        "cli",  # presets by their names
        "models",
        "losses",
        "generate",
        "data",
        "training",
        "checkpoint",
        "interop",
        "run_log",
    },
    "commands": {
        "cli",
        "config",
        "models",
        "data",
        "metrics",
        "tasks",
        "training",
        "probes",
        "evaluation",
        "checkpoint",
        "interop",
        "loading",
        "ops",  # distributed runs
        "benchmarks",
        "planning",
        "files",
    },
}
ONLY_IN = {
    "av": {
        "data/video.py",
        "data/benchmarks/emoji_clips.py",
        "benchmarks/clips.py",
        "benchmarks/decoders.py",
    },
    "decord": {"data/video.py", "benchmarks/decoders.py"},
    "fsspec": {"data/remote.py"},
    "ftfy": {"data/clip_tokenizer.py"},
    "huggingface_hub": {"loading.py"},
    "hydra": {"cli.py"},
    "jinja2": {"evaluation/pages.py"},
    "liger_kernel": {"ops/cross_entropy.py"},
    "matplotlib": {"benchmarks/plot.py"},
    "omegaconf": {"cli.py"},
    "open_clip": {"benchmarks/peers.py", "evaluation/open_clip_subject.py"},
    "pycocoevalcap": {"metrics/java.py"},
    "pytorchvideo": {"data/clips.py"},
    "pyarrow": {"data/tables.py"},
    "safetensors": {
        "checkpoint.py",
        "data/token_cache.py",
        "evaluation/parts.py",
        "interop/files.py",
        "probes/heads.py",
        "probes/sweep.py",
    },
    "submitit": {"commands/cluster.py"},
    "tokenizers": {"data/tokenizer.py"},
    "torchcodec": {"benchmarks/decoders.py"},
    "transformers": {"benchmarks/peers.py"},
    "wandb": {"training/trackers.py"},
    "webdataset": {"data/shards.py"},
    "xformers": {"ops/attention.py"},
}


def imported(path: Path) -> set[str]:
    """Full names of all modules a file imports, those inside functions and through importlib included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names.add(ast.literal_eval(node.args[0]))
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_stay_in_their_rooms(path):
    inside = path.relative_to(PACKAGE)
    room = inside.with_suffix("").parts[0]
    assert room in MAY_IMPORT, f"{room} is not in the table"
    for name in imported(path):
        first, *rest = name.split(".")
        if first == "coca_video":
            assert rest and rest[0] in MAY_IMPORT[room] | {room, *EVERYWHERE}, f"{inside} imports {name}"
        assert inside.as_posix() in ONLY_IN.get(first, {inside.as_posix()}), f"{inside} imports {name}"


def test_the_tables_speak_of_what_exists():
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES}
    assert rooms == set(MAY_IMPORT)
    for third_party, files in ONLY_IN.items():
        for file in files:
            assert third_party in {name.split(".")[0] for name in imported(PACKAGE / file)}
