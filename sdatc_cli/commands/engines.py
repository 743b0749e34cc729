"""Who does the work of `sdatc upscale`: this process, one process a device, or a Ray cluster."""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from sdatc_cli import output
from sdatc_cli.errors import UsageError

if TYPE_CHECKING:
    from sdatc_cli.engine.job import Job, Result


@dataclass(frozen=True)
class Engine:
    """What was asked for, in the words of the command line. `address` is that of a Ray cluster."""

    model: str
    device: str = "auto"
    dtype: str = "auto"
    name: Literal["local", "ray"] = "local"
    address: str | None = None


def restore(job: "Job", engine: Engine, terminal: output.Terminal) -> "tuple[Result, dict[str, str]]":
    """Runs a job; returns what came of it, and the device and number format in words.

    Raises the classes of errors.py.
    """
    if engine.name == "ray":
        return _on_ray(job, engine, terminal)
    if engine.address is not None:
        raise UsageError("--address is that of a Ray cluster: give --engine ray too")
    from sdatc_cli.commands.upscale import load_model
    from sdatc_cli.engine import job as single
    from sdatc_cli.engine.device import dtype_name, pick_devices, pick_dtype

    devices = pick_devices(engine.device)
    numbers = pick_dtype(engine.dtype, devices[0])
    how = {"device": ",".join(map(str, devices)), "dtype": dtype_name(numbers)}
    job = identified(job, engine.model, devices[0].type, how["dtype"])
    if len(devices) == 1:
        with terminal.showing("restoring"):
            return single.upscale(job, lambda: load_model(engine.model, devices[0], numbers), terminal), how
    from sdatc_cli.engine.parallel import upscale
    from sdatc_cli.engine.workers import WorkerCrew, share_of_threads

    if devices[0].type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        threads = share_of_threads(len(devices))
        terminal.notice(
            f"each process computes with {threads} threads; one with as many gives the same file to the bit"
        )
    crew = WorkerCrew(job, partial(load_model, engine.model), devices, numbers)
    with terminal.showing("restoring"):
        return upscale(job, crew, _configuration(engine.model), terminal), how


def _on_ray(job: "Job", engine: Engine, terminal: output.Terminal) -> "tuple[Result, dict[str, str]]":
    from sdatc_cli.commands.upscale import load_model
    from sdatc_cli.engine.parallel import upscale

    try:
        from sdatc_cli.engine.ray_engine import RayCluster
    except ModuleNotFoundError as error:
        raise UsageError("--engine ray needs the package ray: pip install 'sdatc[ray]'") from error
    with RayCluster(engine.address, engine.device, engine.dtype) as cluster:
        how = {"device": f"{cluster.kind} ({cluster.nodes} Ray nodes)", "dtype": cluster.dtype}
        job = identified(job, engine.model, cluster.kind, cluster.dtype)
        with terminal.showing("restoring"):
            crew = cluster.crew(job, engine.model, load_model)
            return upscale(job, crew, _configuration(engine.model), terminal), how


def identified(job: "Job", model: str, kind: str, dtype: str) -> "Job":
    """The job with all that its work depends on, for the journal. ModelError when there is no such model."""
    from sdatc_cli.commands.upscale import model_checksums

    return replace(job, model={"weights": model_checksums(model), "device": kind, "dtype": dtype})


def _configuration(model: str) -> str:
    """The name of a model's configuration."""
    from sdatc_models import weights

    return weights.read_config(weights.folder_of(model))[0].name
