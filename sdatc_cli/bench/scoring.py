"""Scores every version of one clip against its ground truth. Runs in a worker process: videos arrive as raw files."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sdatc_cli.engine.cores import confine_torch, cores
from sdatc_cli.errors import SdatcError

from . import fidelity, metrics, temporal
from .vmaf import vmaf

PER_FRAME = ("psnr-y", "ssim-y", "psnr-rgb", "ssim-rgb", "niqe", "ldl", "maniqa", "clip-iqa")
NETWORK = ("lpips-vgg", "lpips-alex", "dists", "tlp")


@dataclass(frozen=True)
class RawVideo:
    """RGB bytes in a file, frame after frame. `frames` are the indices, in the clip, of the frames it holds."""

    path: Path
    frames: tuple[int, ...]
    height: int
    width: int

    def pixels(self) -> np.ndarray:
        """(n, height, width, 3) uint8, mapped from the file."""
        return np.memmap(self.path, np.uint8, "r", shape=(len(self.frames), self.height, self.width, 3))

    @staticmethod
    def write(path: Path, images: Iterable[np.ndarray], frames: Sequence[int]) -> "RawVideo":
        """Stores (height, width, 3) uint8 images of one size as they come; `frames` must be known when all have."""
        path.parent.mkdir(parents=True, exist_ok=True)
        height = width = 0
        with path.open("wb") as file:
            for image in images:
                file.write(np.ascontiguousarray(image).data)
                height, width = image.shape[:2]
        return RawVideo(path, tuple(frames), height, width)


@dataclass(frozen=True)
class Plan:
    """What to score: every `every`-th frame with `names`; metrics built on VGG16 only at `vgg_frames` where given."""

    names: tuple[str, ...]
    every: int = 1
    vgg_frames: tuple[int, ...] | None = None
    device: str = "cpu"

    def wanted(self, index: int) -> bool:
        """Whether the metrics of single frames look at frame `index`."""
        return index % self.every == 0

    def skipped(self, index: int) -> tuple[str, ...]:
        """The perceptual metrics that do not look at frame `index`."""
        if not self.wanted(index):
            return ("lpips-vgg", "dists", "lpips-alex")
        return () if self.vgg_frames is None or index in self.vgg_frames else metrics.VGG


@dataclass
class Scores:
    """One version's results: (frame index, value) lists by metric, and why others could not be computed."""

    frames: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, index: int, value: float) -> None:
        self.frames.setdefault(name, []).append((index, float(value)))

    def means(self) -> dict[str, float]:
        """The mean of each metric over its frames, those that have no finite value (equal images) left out."""
        kept = {name: [v for _, v in values if np.isfinite(v)] for name, values in self.frames.items()}
        return {name: float(np.mean(values)) for name, values in kept.items() if values}


def score_clip(truth: RawVideo, versions: Sequence[RawVideo], plan: Plan, tick: Callable[[], None]) -> list[Scores]:
    """Scores of the ground truth itself (first; only where that means something) and of each version, in order.

    tick: called once for every frame done.
    """
    videos = [truth, *versions]
    scores = [Scores() for _ in videos]
    clip = Versions([video.pixels() for video in videos], [video.frames for video in videos])
    indices = [index for index in truth.frames if any(image is not None for image in clip.at(index)[1:])]
    _score_networks(clip, indices, scores, plan, tick)
    with ThreadPoolExecutor(cores()) as pool:
        for found in pool.map(lambda index: _score_frame(clip, index, plan), indices):
            for position, name, index, value in found:
                if isinstance(value, str):
                    scores[position].failed[name] = value
                else:
                    scores[position].add(name, index, value)
    for _ in range(len(truth.frames) - len(indices)):
        tick()
    if "warp" in plan.names:
        _relative_warp(scores)
    if "vmaf" in plan.names:
        _score_vmaf(truth, versions, scores[1:], plan.every)
    for found in scores:
        found.frames = {name: values for name, values in found.frames.items() if name in plan.names}
        for name, values in found.frames.items():
            if all(np.isnan(value) for _, value in values):
                found.failed[name] = "the frames are too small for it"
    return scores


class Versions:
    """The frames of the ground truth (position 0) and of its versions by their index in the clip."""

    def __init__(self, pixels: Sequence[np.ndarray], frames: Sequence[Sequence[int]]):
        self.pixels = pixels
        self.places = [{index: place for place, index in enumerate(held)} for held in frames]

    def at(self, index: int) -> list[np.ndarray | None]:
        """Frame `index` of each, None where it is not there."""
        found = [places.get(index) for places in self.places]
        return [None if at is None else held[at] for held, at in zip(self.pixels, found, strict=True)]


def _score_networks(
    clip: Versions, indices: Sequence[int], scores: list[Scores], plan: Plan, tick: Callable[[], None]
) -> None:
    """Adds the metrics that networks compute; if their weights cannot be read, that is recorded instead."""
    names = [name for name in plan.names if name in NETWORK]
    networks = None
    try:
        networks = load_networks(names, plan.device)
    except SdatcError as error:
        for found in scores:
            found.failed.update(dict.fromkeys(names, str(error)))
    for index in indices:
        if networks is not None:
            truth, *images = clip.at(index)
            assert truth is not None
            for found, values in zip(
                scores[1:], networks.frame(index, truth, images, plan.skipped(index)), strict=True
            ):
                for name, value in values.items():
                    found.add(name, index, value)
        tick()


def load_networks(names: Sequence[str], device: str):
    """The networks behind `names`, None for none. ModelError when their weights cannot be read."""
    if not names:
        return None
    from .networks import PerceptualScores, network

    confine_torch()
    for name in names:
        network("lpips-alex" if name == "tlp" else name, device)
    return PerceptualScores(names, device)


Found = list[tuple[int, str, int, float | str]]  # position of the version, metric, frame index, value or what failed


def _score_frame(clip: Versions, index: int, plan: Plan) -> Found:
    """The metrics that need no network of ours, of frame `index` and of the step to it from the frame before."""
    images = clip.at(index)
    found = _score_pair(clip, index, plan)
    truth = images[0]
    assert truth is not None
    if not plan.wanted(index):
        return found
    for position, image in enumerate(images):
        for name in PER_FRAME:
            if image is None or name not in plan.names or (position == 0 and name not in metrics.OF_TRUTH):
                continue
            try:
                found.append((position, name, index, frame_score(name, truth, image, plan.device)))
            except SdatcError as error:
                found.append((position, name, index, str(error)))
    return found


def _score_pair(clip: Versions, index: int, plan: Plan) -> Found:
    """Warping error and tOF between frames `index` - 1 and `index` of every video that holds both."""
    before, now = clip.at(index - 1), clip.at(index)
    if not {"warp", "warp-error", "tof"} & set(plan.names) or before[0] is None or now[0] is None:
        return []
    pairs = [(k, a, b) for k, (a, b) in enumerate(zip(before, now, strict=True)) if a is not None and b is not None]
    if len(pairs) < 2:
        return []
    truth = temporal.motion(before[0], now[0])
    found: Found = []
    for k, first, second in pairs:
        found.append((k, "warp-error", index, temporal.warping_error(first, second, truth)))
        if k and "tof" in plan.names:
            found.append((k, "tof", index, temporal.flow_difference(first, second, truth)))
    return found


def frame_score(name: str, truth: np.ndarray, image: np.ndarray, device: str) -> float:
    """One metric of PER_FRAME."""
    match name:
        case "psnr-y":
            return fidelity.psnr(fidelity.luma(truth), fidelity.luma(image))
        case "ssim-y":
            return fidelity.ssim(fidelity.luma(truth), fidelity.luma(image))
        case "psnr-rgb":
            return fidelity.psnr(truth, image)
        case "ssim-rgb":
            return fidelity.ssim(truth, image)
        case "ldl":
            return fidelity.artifact_loss(truth, image)
        case "niqe":
            from .niqe import niqe

            return niqe(image)
    from . import library

    return library.score(name, image, device)


def _relative_warp(scores: list[Scores]) -> None:
    """`warp`: the mean warping error divided by the ground truth's own over the same pairs of frames."""
    own = dict(scores[0].frames.get("warp-error", []))
    for found in scores:
        pairs = found.frames.get("warp-error", [])
        finite = [(index, value) for index, value in pairs if np.isfinite(value) and own.get(index)]
        if finite:
            total = sum(own[index] for index, _ in finite)
            found.add("warp", finite[0][0], sum(value for _, value in finite) / total)


def _score_vmaf(truth: RawVideo, versions: Sequence[RawVideo], scores: list[Scores], every: int) -> None:
    for video, found in zip(versions, scores, strict=True):
        if every > 1 or video.frames != truth.frames:  # one that has them all would not compare with the others
            found.failed["vmaf"] = "needs every frame of the clip; leave --every out"
            continue
        try:
            values = vmaf(truth.path, video.path, video.width, video.height)
        except SdatcError as error:
            found.failed["vmaf"] = str(error)
            continue
        for index, value in zip(video.frames, values, strict=True):
            found.add("vmaf", index, value)
