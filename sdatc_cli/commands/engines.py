"""The engines of `sdatc upscale` beside this process: one process a device, or a Ray cluster."""

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sdatc_cli import output
from sdatc_cli.commands.request import Request
from sdatc_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from sdatc_cli.engine.job import Job, Result
    from sdatc_cli.engine.ray_engine import RayCluster


def on_devices(
    job: "Job",
    model: str,
    devices: "Sequence[torch.device]",
    dtype: "torch.dtype",
    terminal: output.Terminal,
    label: str,
) -> "Result":
    """Runs a job in one process a device. Raises the classes of errors.py."""
    from sdatc_cli.commands.workshop import load_model, model_config
    from sdatc_cli.engine.parallel import upscale
    from sdatc_cli.engine.workers import WorkerCrew, share_of_threads

    if devices[0].type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        threads = share_of_threads(len(devices))
        terminal.notice(
            f"each process computes with {threads} threads; one with as many gives the same file to the bit"
        )
    crew = WorkerCrew(job, partial(load_model, model), devices, dtype)
    with terminal.showing(label):
        return upscale(job, crew, model_config(model)[0], terminal)


def ray_cluster(request: Request) -> "RayCluster":
    """The cluster of a request, to be entered. UsageError without the package ray."""
    try:
        from sdatc_cli.engine.ray_engine import RayCluster
    except ModuleNotFoundError as error:
        raise UsageError("--engine ray needs the package ray: pip install 'sdatc[ray]'") from error
    return RayCluster(request.address, request.device, request.dtype)


def on_ray(
    job: "Job", model: str, cluster: "RayCluster", checksums: dict[str, str], terminal: output.Terminal, label: str
) -> "tuple[Result, dict[str, str]]":
    """Runs a job on a cluster; returns what came of it, and the devices and number format in words.

    Raises the classes of errors.py.
    """
    from sdatc_cli.commands.workshop import load_model, model_config
    from sdatc_cli.engine.parallel import upscale
    from sdatc_cli.zoo.installed import embedded, find

    how = {"device": f"{cluster.kind} ({cluster.nodes} Ray nodes)", "dtype": cluster.dtype}
    job = job.made_by(checksums, cluster.kind, cluster.dtype)
    with terminal.showing(label):
        crew = cluster.crew(job, model if model in embedded() else str(find(model)), load_model)
        return upscale(job, crew, model_config(model)[0], terminal), how
