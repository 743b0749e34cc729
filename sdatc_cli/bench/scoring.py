"""Scores every version of one clip against its ground truth. Runs in a worker process: videos arrive as raw files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

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
    def write(path: Path, images: Sequence[np.ndarray], frames: Sequence[int]) -> "RawVideo":
        """Stores (height, width, 3) uint8 images of one size."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for image in images:
                file.write(np.ascontiguousarray(image).tobytes())
        return RawVideo(path, tuple(frames), *images[0].shape[:2])


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
    pixels = [video.pixels() for video in videos]
    places = [{index: place for place, index in enumerate(video.frames)} for video in videos]
    networks = _networks(plan, scores)
    previous: list[np.ndarray | None] = [None] * len(videos)
    for index in truth.frames:
        images = [None if (at := places[k].get(index)) is None else pixels[k][at] for k in range(len(videos))]
        if any(image is not None for image in images[1:]):
            _score_frame(index, images, scores, plan, networks)
            _score_pair(index, previous, images, scores, plan)
        previous = images
        tick()
    if "warp" in plan.names:
        _relative_warp(scores)
    if "vmaf" in plan.names:
        _score_vmaf(truth, versions, scores[1:])
    for found in scores:
        found.frames = {name: values for name, values in found.frames.items() if name in plan.names}
        for name, values in found.frames.items():
            if all(np.isnan(value) for _, value in values):
                found.failed[name] = "the frames are too small for it"
    return scores


def _networks(plan: Plan, scores: list[Scores]):
    """The perceptual networks, or None when none is asked for or their weights cannot be read (which is recorded)."""
    names = [name for name in plan.names if name in NETWORK]
    if not names:
        return None
    from .networks import PerceptualScores, network

    try:
        for name in names:
            network("lpips-alex" if name == "tlp" else name, plan.device)
    except SdatcError as error:
        for found in scores:
            found.failed.update(dict.fromkeys(names, str(error)))
        return None
    return PerceptualScores(names, plan.device)


def _score_frame(index: int, images: Sequence[np.ndarray | None], scores: list[Scores], plan: Plan, networks) -> None:
    truth = images[0]
    assert truth is not None
    if networks is not None:
        for found, values in zip(
            scores[1:], networks.frame(index, truth, images[1:], plan.skipped(index)), strict=True
        ):
            for name, value in values.items():
                found.add(name, index, value)
    if not plan.wanted(index):
        return
    for position, (image, found) in enumerate(zip(images, scores, strict=True)):
        for name in PER_FRAME:
            if image is None or name not in plan.names or name in found.failed:
                continue
            if position == 0 and name not in metrics.OF_TRUTH:
                continue
            try:
                found.add(name, index, frame_score(name, truth, image, plan.device))
            except SdatcError as error:
                found.failed[name] = str(error)


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


def _score_pair(
    index: int, before: Sequence[np.ndarray | None], now: Sequence[np.ndarray | None], scores: list[Scores], plan: Plan
) -> None:
    """Warping error and tOF between frame `index` - 1 and frame `index` of every video that holds both."""
    first, second = before[0], now[0]
    if not {"warp", "warp-error", "tof"} & set(plan.names) or first is None or second is None:
        return
    pairs = [(k, a, b) for k, (a, b) in enumerate(zip(before, now, strict=True)) if a is not None and b is not None]
    if len(pairs) < 2:
        return
    truth = temporal.motion(first, second)
    for k, a, b in pairs:
        scores[k].add("warp-error", index, temporal.warping_error(a, b, truth))
        if k and "tof" in plan.names:
            scores[k].add("tof", index, temporal.flow_difference(a, b, truth))


def _relative_warp(scores: list[Scores]) -> None:
    """`warp`: the mean warping error divided by the ground truth's own over the same pairs of frames."""
    own = dict(scores[0].frames.get("warp-error", []))
    for found in scores:
        pairs = found.frames.get("warp-error", [])
        finite = [(index, value) for index, value in pairs if np.isfinite(value) and own.get(index)]
        if finite:
            total = sum(own[index] for index, _ in finite)
            found.add("warp", finite[0][0], sum(value for _, value in finite) / total)


def _score_vmaf(truth: RawVideo, versions: Sequence[RawVideo], scores: list[Scores]) -> None:
    for video, found in zip(versions, scores, strict=True):
        if video.frames != truth.frames:
            found.failed["vmaf"] = "needs every frame of the clip; leave --every out"
            continue
        try:
            values = vmaf(truth.path, video.path, video.width, video.height)
        except SdatcError as error:
            found.failed["vmaf"] = str(error)
            continue
        for index, value in zip(video.frames, values, strict=True):
            found.add("vmaf", index, value)
