"""What runs on the nodes of a Ray cluster: one stretch, made from the input and the weights as the node finds them.

Both are read where they lie when the node sees the same files there, as on a shared disk. Else their contents come
through Ray's object store, once a node, into a temporary folder.
"""

import contextlib
import os
import pickle
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import ray  # pyright: ignore[reportMissingImports]
import torch

from sdatc_cli import __version__
from sdatc_cli.engine.crew import Event, Failed, Finished, Lost, Notice, Progress
from sdatc_cli.engine.device import pick_dtype
from sdatc_cli.engine.job import Job
from sdatc_cli.engine.journal import input_identity
from sdatc_cli.engine.memory import Frugal, free_bytes
from sdatc_cli.engine.scan import Task
from sdatc_cli.engine.unit import make_stretch
from sdatc_cli.errors import SdatcError, UsageError
from sdatc_cli.media.info import MediaInfo
from sdatc_models import weights
from sdatc_models.restorer import Restorer

CHUNK = 64 << 20  # bytes of a file that travel as one object

Shared = tuple[tuple[str, tuple[Any, ...]], ...]  # names of files, and references to their contents in chunks


@dataclass(frozen=True)
class Order:
    """All that a task needs to know beside its stretch.

    `identity` and `checksums` tell the right input and weights; `input` and `model` bring them to nodes that lack them,
    None as long as no node was known to lack them. `token` names the job's folder on the nodes. `cpus` are those of a
    task, `flow_threads` those of OpenCV, whose flow depends on their number.
    """

    job: Job
    identity: dict[str, Any]
    model_name: str
    checksums: dict[str, str]
    load: Callable[[str, torch.device, torch.dtype], Restorer]
    kind: str
    dtype: torch.dtype
    cpus: int
    flow_threads: int
    token: str
    mailbox: Any
    input: Shared | None = None
    model: Shared | None = None
    version: str = __version__


@dataclass(frozen=True)
class Missing:
    """The node does not see something that was not shared yet."""

    what: Literal["input", "model"]


@dataclass(frozen=True)
class Delivery:
    """A finished stretch and the content of its file."""

    finished: Finished
    content: bytes


class _Absent(Exception):
    """Carries a Missing."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing.what)
        self.missing = missing


def share(paths: Sequence[Path]) -> Shared:
    """Puts files into the object store. OSError."""
    return tuple((path.name, tuple(_chunks(path))) for path in paths)


def _chunks(path: Path) -> list[Any]:
    references = []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            references.append(ray.put(chunk))
    return references


def device_of(kind: str) -> torch.device:
    """The CPU, or the card that Ray gave this task, by its place among those that this process sees."""
    if kind == "cpu":
        return torch.device("cpu")
    given, seen = str(ray.get_gpu_ids()[0]), os.environ.get("CUDA_VISIBLE_DEVICES")
    return torch.device("cuda", seen.split(",").index(given) if seen else int(given))


def survey(kind: str) -> tuple[int, bool]:
    """Of this node: free bytes on a device of the kind, and whether it computes in bf16."""
    device = device_of(kind)
    return free_bytes(device), pick_dtype("auto", device) == torch.bfloat16


def clear(token: str) -> None:
    """Removes a job's folder from this node."""
    shutil.rmtree(_folder(token), ignore_errors=True)


def make(order: Order, task: Task, tile: int | None) -> Delivery | Missing | Failed | Lost:
    """Makes a stretch on this node."""
    host = socket.gethostname()
    try:
        if order.version != __version__:
            raise UsageError(f"{host} has sdatc {__version__}, not {order.version}: install the same on all nodes")
        torch.set_num_threads(order.cpus)
        cv2.setNumThreads(order.flow_threads)
        info, restorer = _input(order), _restorer(order)
        with tempfile.TemporaryDirectory(prefix="sdatc-") as folder:
            return _make(order, info, restorer, task, tile, Path(folder))
    except _Absent as absent:
        return absent.missing
    except SdatcError as error:
        return Failed(error)
    except Exception as error:  # of this node: another one may do
        return Lost(task.number, f"{type(error).__name__} on {host}: {error}")


def _make(order: Order, info: MediaInfo, restorer: Restorer, task: Task, tile: int | None, folder: Path) -> Delivery:
    def tell(event: Event) -> None:
        order.mailbox.put.remote(pickle.dumps(event))

    job = order.job
    network = Frugal(restorer, replace(job.restore, tile=tile), lambda line: tell(Notice(line)))
    plan, file = replace(job.output, info=info), folder / f"{task.number:06}.packets"
    made = make_stretch(task, plan, network, job.scale, file, lambda frames: tell(Progress(task.number, frames)))
    return Delivery(Finished(task.number, made), file.read_bytes())


_inputs: dict[str, MediaInfo] = {}  # of this process, by token
_restorers: dict[Any, Restorer] = {}  # by what they are, for they serve all files of a batch


def _input(order: Order) -> MediaInfo:
    """The input as this node can read it."""
    if order.token not in _inputs:
        info = order.job.info
        if not _sees(info, order.identity):
            folder = _fetched("input", order)
            frames = tuple(folder / path.name for path in info.frames)
            path = folder if info.kind == "frames" else folder / info.path.name
            info = replace(info, path=path, frames=frames)
        _inputs.clear()
        _inputs[order.token] = info
    return _inputs[order.token]


def _sees(info: MediaInfo, identity: dict[str, Any]) -> bool:
    """Whether the input lies here under its name, with the same content at both ends; clocks may differ."""
    try:
        return {**input_identity(info), "mtime_ns": 0} == {**identity, "mtime_ns": 0}
    except OSError:
        return False


def _restorer(order: Order) -> Restorer:
    """The networks on this task's device."""
    device = device_of(order.kind)
    key = order.model_name, tuple(order.checksums.items()), device, order.dtype
    if key not in _restorers:
        try:
            folder = weights.folder_of(order.model_name)
            here = weights.read_config(folder)[1] == order.checksums
        except weights.WeightsError:
            here = False
        model = order.model_name if here else str(_fetched("model", order))
        _restorers.clear()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # of another card, which may be another task's by now
        _restorers[key] = order.load(model, device, order.dtype)
    return _restorers[key]


def _folder(token: str) -> Path:
    return Path(tempfile.gettempdir()) / f"sdatc-{token}"


def _fetched(what: Literal["input", "model"], order: Order) -> Path:
    """The folder on this node that holds shared files; the first task of the node that asks fetches them."""
    files = order.input if what == "input" else order.model
    if files is None:
        raise _Absent(Missing(what))
    folder = _folder(order.token) / what
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{what}.lock").open("w") as lock:
        _wait_for(lock.fileno())
        if not folder.is_dir():
            fresh = Path(tempfile.mkdtemp(dir=folder.parent))
            for name, chunks in files:
                with (fresh / name).open("wb") as file:
                    for chunk in chunks:
                        file.write(ray.get(chunk))
            os.replace(fresh, folder)
    return folder


def _wait_for(lock: int) -> None:
    """Takes the lock of an open file; it ends with the file."""
    with contextlib.suppress(ImportError):  # Windows: then several tasks of a node may fetch the same
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
