"""The networks of a command and what they run on; carries out one job and tells what it did."""

from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdatc_cli import output
from sdatc_cli.commands import engines
from sdatc_cli.commands.request import Request
from sdatc_cli.errors import Interrupted, ModelError
from sdatc_cli.media import isolated
from sdatc_cli.media.encoder_trial import check_settings
from sdatc_cli.media.encoders import hardware
from sdatc_cli.media.info import MediaInfo

if TYPE_CHECKING:
    import torch

    from sdatc_cli.engine.coarseness import Coarseness
    from sdatc_cli.engine.job import Job, Result
    from sdatc_cli.engine.ray_engine import RayCluster
    from sdatc_models.blind import QuantiserEstimator
    from sdatc_models.config import ModelConfig
    from sdatc_models.restorer import Restorer


class Workshop:
    """Carries out jobs of one request. The networks are loaded when the first job needs them, once; so is a cluster
    joined, which is left by `close`."""

    def __init__(self, request: Request) -> None:
        """Raises UsageError or DeviceError for the device, ModelError when there is no such model."""
        from sdatc_cli.engine.cores import confine_torch
        from sdatc_cli.engine.device import dtype_name, pick_devices, pick_dtype

        confine_torch()
        self.request = request
        self._config, self._checksums = model_config(request.model)
        self._coarseness: dict[Path, Coarseness] = {}
        self._open = ExitStack()
        self._devices = pick_devices(request.device) if request.engine == "local" else []  # a cluster picks its own
        if self._devices:
            self._dtype = pick_dtype(request.dtype, *self._devices)
            self.how = {"device": ",".join(map(str, self._devices)), "dtype": dtype_name(self._dtype)}

    @cached_property
    def restorer(self) -> "Restorer":
        """The networks. ModelError."""
        return load_model(self.request.model, self._devices[0], self._dtype)

    @cached_property
    def _estimator(self) -> "QuantiserEstimator":
        """What guesses how coarsely pictures were compressed. ModelError."""
        from sdatc_models.blind import load_estimator
        from sdatc_models.weights import WeightsError

        try:
            return load_estimator()
        except WeightsError as error:
            raise ModelError(str(error)) from error

    @cached_property
    def _cluster(self) -> "RayCluster":
        """The cluster, whose tasks keep the networks as long as we are on it. UsageError, DeviceError."""
        return self._open.enter_context(engines.ray_cluster(self.request))

    def close(self) -> None:
        """Leaves the cluster, if there is one; until then stdout is out of reach."""
        self._open.close()

    def job(
        self,
        info: MediaInfo,
        out: Path,
        start: float | None,
        duration: float | None,
        terminal: output.Terminal,
        folder: bool = False,
    ) -> "Job":
        """One output of the request, a `folder` of frames whatever its name ends in; the terminal hears where its
        codec's word was not taken. ModelError."""
        from sdatc_cli.engine.device import imitated
        from sdatc_cli.engine.job import Job
        from sdatc_models.restorer import RestoreOptions

        r = self.request
        if self._devices and imitated(self._dtype, self._devices[0]):
            terminal.notice(f"this CPU only imitates {r.dtype}, which takes longer than --dtype fp32")
        steps, *others = r.network
        restore = RestoreOptions(steps or self._config.schedule.few, *others, quantiser=self._quantiser(info, terminal))
        auto = restore.tile is None
        encode = replace(r.encode, frame_rate=info.frame_rate) if info.kind == "frames" else r.encode
        return Job(
            info, out, r.scale, restore, auto, encode, start, duration, r.overwrite, r.resume, r.work_dir, folder
        )

    def _quantiser(self, info: MediaInfo, terminal: output.Terminal) -> float | None:
        """What the networks are told of how coarsely an input was compressed."""
        if not self._config.dcm.quantiser:
            return None
        if self.request.quantiser != "auto":
            return self.request.quantiser
        if info.path not in self._coarseness:
            from sdatc_cli.engine.coarseness import coarseness

            self._coarseness[info.path] = coarseness(isolated.evidence(info), self._estimator)
        known = self._coarseness[info.path]
        if known.notice:
            terminal.notice(known.notice)
        return known.quantiser

    def restore(self, job: "Job", terminal: output.Terminal, label: str) -> dict[str, Any]:
        """Runs a job and reports it; returns the facts for `--json`. Raises the classes of errors.py."""
        if job.resumable and (job.encode.options or hardware(job.encode.codec)):
            check_settings(job.encode, job.out, job.info, *job.size)
        try:
            result, how = self._carry_out(job, terminal, label)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {job.out} was not written{kept(job.out, job.work_dir)}") from None
        terminal.say(summary(job, result))
        paths = {"input": str(job.info.path), "output": str(job.out), "model": self.request.model}
        return paths | result.as_dict() | how | {"options": self.options(job), "notices": terminal.notices}

    def _carry_out(self, job: "Job", terminal: output.Terminal, label: str) -> "tuple[Result, dict[str, str]]":
        """What came of a job, and the device and number format in words."""
        from sdatc_cli.engine import job as single

        if not self._devices:
            return engines.on_ray(job, self.request.model, self._cluster, self._checksums, terminal, label)
        job = job.made_by(self._checksums, self._devices[0].type, self.how["dtype"])
        if len(self._devices) > 1:
            return engines.on_devices(job, self.request.model, self._devices, self._dtype, terminal, label), self.how
        with terminal.showing(label):
            return single.upscale(job, lambda: self.restorer, terminal), self.how

    def options(self, job: "Job") -> dict[str, Any]:
        """The settings of a job for `--json`."""
        encode = asdict(job.encode)
        if job.encode.frame_rate is not None:
            encode["frame_rate"] = str(job.encode.frame_rate)
        return {"scale": job.scale, "restore": asdict(job.restore), "encode": encode}


def kept(out: Path, work_dir: Path | None) -> str:
    """What an interrupted run leaves for the next one, in words."""
    from sdatc_cli.engine.journal import work_folder

    if not work_folder(out, work_dir).is_dir():
        return ""
    return "; the finished part is kept, the same command goes on from there"


def model_config(model: str) -> "tuple[ModelConfig, dict[str, str]]":
    """The configuration, and {weight file: SHA-256} as it states them. ModelError when there is no such model."""
    from sdatc_cli.zoo.installed import find
    from sdatc_models import weights

    try:
        return weights.read_config(find(model))
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error


def load_model(model: str, device: "torch.device", dtype: "torch.dtype") -> "Restorer":
    """The networks by name or folder, to restore with. ModelError when they are missing, damaged or do not fit."""
    import torch

    from sdatc_cli.zoo.installed import find
    from sdatc_models import weights
    from sdatc_models.untrained import pass_over_identities

    if device.type == "cuda":
        torch.cuda.set_device(device)  # PyTorch chooses kernels for the current one, whichever it computes on
    try:
        restorer = weights.load(find(model), device=device, dtype=dtype)
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error
    pass_over_identities(restorer)
    return restorer


def summary(job: "Job", result: "Result") -> str:
    """The closing line."""
    (w, h), (big_w, big_h) = result.input_size, result.output_size
    peak = " + ".join(f"{output.megabytes(count)} {where}" for where, count in result.peak.items())
    count = f"{result.frames} frame{'' if result.frames == 1 else 's'}"
    return (
        f"{job.out}: {count}, {w}x{h} -> {big_w}x{big_h}, "
        f"{result.seconds:.1f} s, {result.fps:.2f} fps, peak memory {peak or 'unknown'}"
    )
