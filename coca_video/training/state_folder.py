"""The training state on disk: each process writes what it holds, and any number of processes can read it.

Tensors are torch.distributed.checkpoint's; values.json holds everything else, and where the tensors belong.
Nothing in the folder can run code: the index of the tensors, a pickle, is read with an allow-list of classes.
"""

import json
import pickle
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.tensor import DTensor

from coca_video.checkpoint import sync
from coca_video.errors import InputError
from coca_video.ops.distributed import num_processes, rank

FORMAT = 1
NAME = "state"  # of the folder in a checkpoint's
VALUES = "values.json"
INDEX = ".metadata"
METADATA = "torch.distributed.checkpoint.metadata"
INDEX_CLASSES = {
    (METADATA, "ChunkStorageMetadata"),
    (METADATA, "Metadata"),
    (METADATA, "MetadataIndex"),
    (METADATA, "StorageMeta"),
    (METADATA, "TensorProperties"),
    (METADATA, "TensorStorageMetadata"),
    (METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch", "Size"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
}


def to_tree(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """A nested value as JSON; its tensors go into `tensors`, under the names that stand in their place.

    Raises TypeError for what is neither a dict, list, tuple, tensor nor a plain value.
    """
    if isinstance(value, Tensor):
        if name in tensors:
            raise ValueError(f"two tensors of the training state are named {name}")
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_key(k, name), to_tree(v, tensors, _below(name, k))] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [to_tree(item, tensors, _below(name, index)) for index, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a training state cannot hold a {type(value).__name__}")


def _below(name: str, key: str | int) -> str:
    return f"{name}/{key}" if name else str(key)


def _key(key: Any, name: str) -> str | int:
    if isinstance(key, str | int):
        return key
    raise TypeError(f"{name}: a training state cannot hold a key that is a {type(key).__name__}")


def from_tree(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """What `to_tree` made into JSON, keys and tuples as they were."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: from_tree(item, tensors) for key, item in content}
    items = [from_tree(item, tensors) for item in content]
    return {"list": items, "tuple": tuple(items)}[kind]


def own_share(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What this process writes: its shards of DTensors, and its share of the tensors that all processes have.

    Each of those goes to the process with the fewest bytes so far: none has to hold a copy of them all.
    """
    shares: list[dict[str, Tensor]] = [{} for _ in range(num_processes())]
    loads = [0] * len(shares)
    whole = {name: x for name, x in tensors.items() if not isinstance(x, DTensor)}
    for name, x in sorted(whole.items(), key=lambda item: (-item[1].nbytes, item[0])):
        owner = loads.index(min(loads))
        shares[owner][name] = x
        loads[owner] += x.nbytes
    return {name: x for name, x in tensors.items() if isinstance(x, DTensor)} | shares[rank()]


def write_tensors(folder: Path, own: dict[str, Tensor], group: dist.ProcessGroup | None) -> Metadata:
    """All processes call, each with its `own_share`. Where one fails, all raise CheckpointException."""
    _silence_single_process()
    return dcp.save(
        own,
        storage_writer=_Writer(folder),
        planner=dcp.DefaultSavePlanner(flatten_state_dict=False),
        process_group=group,
        no_dist=group is None,
    )


def finish_folder(folder: Path, tree: Any, metadata: Metadata) -> None:
    """One process calls, last: adds values.json, and makes sure that everything is there and on disk."""
    named: dict[str, Tensor | None] = {}
    _collect_names(tree, named)
    if named.keys() != metadata.state_dict_metadata.keys():
        different = sorted(named.keys() ^ metadata.state_dict_metadata.keys())
        raise ValueError(f"the processes' states differ, the first in {different[0]}")
    files = {info.relative_path for info in metadata.storage_data.values()}
    for name in sorted(files):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{name} is missing: removed, or not on a file system that all nodes share"
            )
    values = folder / VALUES
    values.write_text(json.dumps({"format": FORMAT, "values": tree}), encoding="utf-8")
    sync(values)
    sync(folder)


def _collect_names(tree: Any, names: dict[str, None]) -> None:
    if not isinstance(tree, dict):
        return
    ((kind, content),) = tree.items()
    if kind == "tensor":
        names[content] = None
        return
    for item in content:
        _collect_names(item[1] if kind == "dict" else item, names)


def load_state(checkpoint: Path, into: dict[str, Any] | None = None) -> dict[str, Any]:
    """The state in a checkpoint's folder; each process reads what it needs, and waits for no other.

    into: as the state was saved, by any number of processes. Its tensors and DTensors take up the saved
        values in place and stand in the result. Other tensors are loaded whole, to the CPU.
    Raises InputError where the state is missing or damaged, or `into` has other tensors.
    """
    folder = checkpoint / NAME
    tree, metadata = _read_values(folder), _read_index(folder)
    tensors: dict[str, Tensor] = {}
    to_tree(into or {}, tensors)
    _check_same_tensors(tensors, metadata, folder)
    for name, saved in metadata.state_dict_metadata.items():
        if name not in tensors:
            tensors[name] = torch.empty(saved.size, dtype=saved.properties.dtype)
    try:
        _read_tensors(folder, tensors, metadata)
        return from_tree(tree, tensors)
    except CheckpointException as error:
        raise _damaged(folder, reason(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / VALUES, reason(error)) from error


def _read_tensors(folder: Path, tensors: dict[str, Tensor], metadata: Metadata) -> None:
    _silence_single_process()
    planner = dcp.DefaultLoadPlanner(flatten_state_dict=False)
    dcp.load(tensors, storage_reader=_Reader(folder, metadata), planner=planner, no_dist=True)


def _read_values(folder: Path) -> Any:
    path = folder / VALUES
    old = folder.parent / "state.pt"
    if old.exists() and not folder.exists():
        hint = "no longer read; its weights are: start another run with init="
        raise InputError(f"{old}: a training state of an older version, {hint}{folder.parent}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        return content["values"]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise _damaged(path, reason(error)) from error


def _read_index(folder: Path) -> Metadata:
    path = folder / INDEX
    try:
        with path.open("rb") as file:
            index = _IndexUnpickler(file).load()
        if not _is_index(index):
            raise ValueError("no index of tensors")
        return index
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(path, reason(error)) from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # of a spoilt pickle
        raise _damaged(path, reason(error)) from error


def _is_index(index: Any) -> bool:
    """Of tensors alone, in files of this folder alone."""
    return (
        isinstance(index, Metadata)
        and all(isinstance(saved, TensorStorageMetadata) for saved in index.state_dict_metadata.values())
        and all(Path(info.relative_path).name == info.relative_path for info in index.storage_data.values())
    )


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in INDEX_CLASSES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"holds a {module}.{name}, which no index needs")


class _Reader(dcp.FileSystemReader):
    """Its index has been read, by `_read_index`."""

    def __init__(self, folder: Path, metadata: Metadata):
        super().__init__(folder)
        self.metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.metadata

    def _slice_file(self, file: Any, info: Any) -> Any:
        """The zip file of one tensor. torch does not look at the checksum that it wrote into it."""
        part = BytesIO(super()._slice_file(file, info).read())
        with ZipFile(part) as archive:
            if archive.testzip() is not None:
                raise OSError(f"{info.relative_path} has another checksum")
        part.seek(0)
        return part


class _Writer(dcp.FileSystemWriter):
    """Syncs its files. The index names no path of this machine."""

    def storage_meta(self) -> StorageMeta:
        return StorageMeta()

    def write_data(self, *args: Any) -> Any:
        try:
            return super().write_data(*args)
        except (OSError, RuntimeError) as error:  # what an error was caused by is not sent to other processes
            raise OSError(reason(error)) from error


def _check_same_tensors(tensors: dict[str, Tensor], metadata: Metadata, folder: Path) -> None:
    for name, x in tensors.items():
        saved = metadata.state_dict_metadata.get(name)
        if saved is None:
            raise InputError(f"{folder}: has no {name}, which the run has")
        found, wanted = (saved.size, saved.properties.dtype), (x.shape, x.dtype)
        if found != wanted:
            raise InputError(
                f"{folder}: its {name} is {_described(*found)}, the run's is {_described(*wanted)}"
            )


def _described(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{' x '.join(map(str, shape)) or 'a single number'} of {str(dtype).removeprefix('torch.')}"


def _damaged(path: Path, found: str) -> InputError:
    hint = "without its checkpoint the run goes on from an older one"
    return InputError(f"{path}: missing or damaged ({found}); {hint}")


def reason(error: BaseException) -> str:
    """In one line, what the system said where it said something."""
    if isinstance(error, CheckpointException):
        number, (error, _) = min(error.failures.items())
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _silence_single_process() -> None:
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
