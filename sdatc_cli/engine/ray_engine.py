"""A crew of tasks on a Ray cluster: its nodes, and what they are given to do."""

import hashlib
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import cv2
import ray  # pyright: ignore[reportMissingImports]
import torch
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # pyright: ignore[reportMissingImports]

from sdatc_cli.engine import ray_task
from sdatc_cli.engine.cores import cores
from sdatc_cli.engine.crew import Event, Failed, Lost
from sdatc_cli.engine.device import DTYPES, dtype_name, pick_dtype
from sdatc_cli.engine.job import Job, identity_of
from sdatc_cli.engine.journal import work_folder
from sdatc_cli.engine.ray_mailbox import Mailbox, opened
from sdatc_cli.engine.ray_task import Delivery, Missing, Order
from sdatc_cli.engine.scan import Task
from sdatc_cli.errors import DeviceError, UsageError
from sdatc_cli.media.encoders import EncodeOptions, find_codec
from sdatc_cli.media.target import sync
from sdatc_models import weights
from sdatc_models.restorer import Restorer

POLL = 0.5  # seconds
CPUS = 4  # of a task, where OMP_NUM_THREADS says nothing and the nodes have so many, for each GPU if they have some
# Ray shows each task its card alone. A process takes that in once, and ours live for many tasks: they shall see all.
ALL_CARDS = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
GLANCE = 1.0  # seconds between looks at the nodes
PATIENCE = 60.0  # seconds without any node that can work
Loader = Callable[[str, torch.device, torch.dtype], Restorer]


class RayCluster:
    """A connection to a cluster, open while the context is. `kind` is "cpu" or "cuda"; `dtype` as `--dtype` takes it.

    `free`: bytes of memory for each task, on the node that has least; None where the nodes do not say.
    """

    def __init__(self, address: str | None, device: str, dtype: str) -> None:
        """`address` None: what RAY_ADDRESS says, else a cluster of this machine alone. UsageError."""
        if device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"--device {device}: with --engine ray choose auto, cpu or cuda; Ray picks the cards")
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        self.kind = self.dtype = ""
        self.free: int | None = None
        self.cpus = 1
        self._wanted = device, dtype
        self._open = ExitStack()
        self._workers: list[dict[str, Any]] = []
        self._looked = -GLANCE

    def __enter__(self) -> "RayCluster":
        """Raises UsageError where there is no cluster, DeviceError where it has no such device."""
        with ExitStack() as stack:
            # Ray tells the deaths of nodes on stdout, where results alone belong; we tell what follows from them.
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            stack.callback(ray.shutdown)
            _connect(self.address)
            self._choose(*self._wanted)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _choose(self, device: str, dtype: str) -> None:
        gpus = any(node["Resources"].get("GPU") for node in _alive())
        self.kind = ("cuda" if gpus else "cpu") if device == "auto" else device
        nodes = self.workers()
        if not nodes:
            raise DeviceError(
                f"--device {self.kind}: no node of the cluster has one; `ray status` lists what they have"
            )
        wanted = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else CPUS
        self.cpus = min(wanted, *(self._cpus_for_a_task(node["Resources"]) for node in nodes))
        numbers: dict[str, Any] = {"num_cpus": 0}
        if self.kind == "cuda":
            numbers = {"num_gpus": 0.01, "runtime_env": ALL_CARDS}
        survey = ray.remote(max_calls=1)(ray_task.survey)  # a process that lived on would keep memory of a card
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = survey.options(**numbers, scheduling_strategy=there, max_retries=0)
            asked[node["NodeID"]] = task.remote(self.kind)
        findings = {}
        for node in nodes:
            with suppress(RayError):  # it has died meanwhile
                findings[node["NodeID"]] = ray.get(asked[node["NodeID"]])
        # The tasks of a node share its memory, while each has a card of its own.
        each = [free // (self._slots(node) if self.kind == "cpu" else 1) for node in nodes
                if (free := findings.get(node["NodeID"], (None,))[0]) is not None]  # fmt: skip
        self.free = min(each, default=None)
        if dtype == "auto":  # one that every node computes in
            lesser = "fp16" if self.kind == "cuda" else "fp32"
            dtype = "bf16" if all(bf16 for _, bf16 in findings.values()) else lesser
        self.dtype = dtype_name(pick_dtype(dtype, torch.device(self.kind)))

    @property
    def nodes(self) -> int:
        """How many nodes can work."""
        return len(self.workers())

    @property
    def slots(self) -> int:
        """How many tasks fit on the nodes at a time."""
        return sum(map(self._slots, self.workers()))

    def workers(self) -> list[dict[str, Any]]:
        """The nodes that have what a task needs, as they were a moment ago."""
        if time.monotonic() - self._looked > GLANCE:
            name, least = ("GPU", 1) if self.kind == "cuda" else ("CPU", self.cpus)
            self._workers = [node for node in _alive() if node["Resources"].get(name, 0) >= least]
            self._looked = time.monotonic()
        return self._workers

    def _cpus_for_a_task(self, resources: dict[str, Any]) -> int:
        """How many CPUs a node has for each task that it can take."""
        return max(1, int(resources.get("CPU", 0) // (resources["GPU"] if self.kind == "cuda" else 1)))

    def _slots(self, node: dict[str, Any]) -> int:
        resources = node["Resources"]
        return int(resources["GPU"] if self.kind == "cuda" else resources["CPU"] // self.cpus)

    def crew(self, job: Job, model: str, load: Loader) -> "RayCrew":
        """A crew for one job with the networks that `load` (a function of a module) gives for a model's name or folder.

        InputError when the input has gone, WeightsError when there is no such model.
        """
        return RayCrew(self, job, model, load)


class RayCrew:
    """The tasks of one job on a cluster."""

    def __init__(self, cluster: RayCluster, job: Job, model: str, load: Loader) -> None:
        self._cluster = cluster
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        folder = weights.folder_of(model).absolute()
        checksums = weights.read_config(folder)[1]
        name = model if folder == weights.ZOO / model else str(folder)  # an embedded one lies elsewhere on each node
        info = replace(job.info, path=job.info.path.absolute(), frames=tuple(f.absolute() for f in job.info.frames))
        self._order = Order(
            job=replace(job, info=info, encode=_as_here(job.encode)),
            identity=identity_of(job)["input"],
            model_name=name,
            checksums=checksums,
            load=load,
            kind=cluster.kind,
            dtype=DTYPES[cluster.dtype],
            cpus=cluster.cpus,
            flow_threads=cv2.getNumThreads(),
            token=uuid.uuid4().hex[:12],
            mailbox=self._mailbox,
        )
        self._sent = ray.put(self._order)
        needs: dict[str, Any] = {"num_cpus": cluster.cpus}
        if cluster.kind == "cuda":
            needs |= {"num_gpus": 1, "runtime_env": ALL_CARDS}
        self._make: Any = ray.remote(ray_task.make).options(**needs, max_retries=0, scheduling_strategy="SPREAD")
        self._running: dict[Any, tuple[Task, int | None]] = {}
        self._able = time.monotonic()  # when there was a node last

    @property
    def size(self) -> int:
        return self._cluster.slots + 1  # one waits, so that no node does, and a cluster that can grow knows it should

    @property
    def free(self) -> int | None:
        return self._cluster.free

    def __enter__(self) -> "RayCrew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RayError):
            for reference in self._running:
                ray.cancel(reference, force=True)
            ray.kill(self._mailbox)
            if self._order.input or self._order.model:
                self._clear()

    def submit(self, task: Task, tile: int | None) -> None:
        self._running[self._make.remote(self._sent, task, tile)] = task, tile

    def events(self) -> list[Event]:
        ray.wait(list(self._running), timeout=POLL)
        done, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        heard: list[Event] = []
        with suppress(RayError):
            heard += opened(ray.get(self._mailbox.take.remote()))
        for reference in done:
            heard += self._outcome(reference)
        if self._cluster.slots:
            self._able = time.monotonic()
        elif time.monotonic() - self._able > PATIENCE:
            heard.append(Failed(DeviceError("no node of the cluster is left to work; finished frames are kept")))
        return heard

    def _outcome(self, reference: Any) -> list[Event]:
        task, tile = self._running.pop(reference)
        try:
            outcome: Any = ray.get(reference)
        except RayError as error:
            why = (str(error).strip() or "no reason given").splitlines()[0]
            return [Lost(task.number, f"{type(error).__name__}: {why}")]
        if isinstance(outcome, Missing):
            self._share(outcome)
            self.submit(task, tile)
            return []
        if isinstance(outcome, Delivery):
            return [self._accept(outcome)]
        return [outcome]

    def _share(self, missing: Missing) -> None:
        """Puts what a node does not see into the object store. OSError."""
        order, info = self._order, self._order.job.info
        if missing.what == "input" and order.input is None:
            self._order = replace(order, input=ray_task.share(info.frames or (info.path,)))
        elif missing.what == "model" and order.model is None:
            folder = weights.folder_of(order.model_name)
            files = [folder / "config.json", *(folder / name for name in order.checksums)]
            self._order = replace(order, model=ray_task.share(files))
        if self._order is not order:
            self._sent = ray.put(self._order)

    def _accept(self, delivery: Delivery) -> Event:
        """Brings a delivered stretch to the disk of the work folder. OSError."""
        finished, content = delivery.finished, delivery.content
        if hashlib.sha256(content).hexdigest() != finished.made.segment.sha256:
            return Lost(finished.number, "its content was damaged on the way")
        job = self._order.job
        file = work_folder(job.out, job.work_dir) / finished.made.segment.name
        file.write_bytes(content)
        sync(file)
        return finished

    def _clear(self) -> None:
        """Removes from the nodes what was brought there."""
        clearing = []
        for node in self._cluster.workers():
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(ray_task.clear).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
            clearing.append(task.remote(self._order.token))
        ray.wait(clearing, num_returns=len(clearing), timeout=10)


def _as_here(encode: EncodeOptions) -> EncodeOptions:
    """x264 cuts a picture into as many slices as there are cores: let the nodes do as this machine would."""
    if find_codec(encode.codec).name != "libx264" or "threads" in dict(encode.options):
        return encode
    return replace(encode, options=(*encode.options, ("threads", str(cores()))))


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _connect(address: str) -> None:
    """Starts or joins a cluster, quietly. UsageError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ours: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **ours)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise UsageError(f"--address {address}: no Ray cluster there ({' '.join(str(error).split())[:200]})") from error
    if main and before is not None:
        signal.signal(signal.SIGTERM, before)  # Ray would end the process at once
