"""High-resolution training clips: real motion cut from videos, made motion over photographs.

A clip is uint8 RGB (frames, size, size, 3).
"""

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError

from sdatc_cli.engine import batch
from sdatc_cli.errors import InputError
from sdatc_cli.media.container import show

PHOTO_SUFFIXES = {".webp", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
VIDEO_SUFFIXES = set(batch.VIDEO_SUFFIXES)


def find_files(folder: Path, suffixes: set[str]) -> list[Path]:
    """Files below `folder` with one of `suffixes`, sorted. InputError if the folder does not exist."""
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes)


def read_photo(path: Path) -> np.ndarray:
    """RGB uint8 (h, w, 3). InputError if it cannot be decoded."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    except cv2.error:  # a header that promises more pixels than OpenCV makes
        image = None
    if image is None:
        raise InputError(f"not a readable photo: {show(path)}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def shrink(image: np.ndarray, factor: float, squeeze: float = 1.0) -> np.ndarray:
    """Area reduction by `factor` <= 1, and of the width by `squeeze` <= 1 more.

    It also removes what the photo's own compression left.
    """
    if factor >= 1 and squeeze >= 1:
        return image
    return cv2.resize(image, None, fx=factor * squeeze, fy=factor, interpolation=cv2.INTER_AREA)


def sharpened(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Most clips as a camera or an editor makes them: with an unsharp mask. The others as they are.

    Photographs reduced to the size of a video frame have a quarter of the power in fine detail that much real footage
    has.
    """
    if rng.random() < 0.4:
        return clip
    radius, amount = float(rng.uniform(0.6, 1.6)), float(rng.uniform(0.3, 1.8))
    soft = [cv2.GaussianBlur(frame, (0, 0), radius) for frame in clip]
    return np.stack([cv2.addWeighted(f, 1 + amount, s, -amount, 0) for f, s in zip(clip, soft, strict=True)])


def _pose(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Smooth path of (dx, dy, log zoom, angle) per frame: constant velocity plus a little shake."""
    pace = np.exp(rng.uniform(np.log(0.3), np.log(4))) * (rng.random() < 0.85)
    speed = rng.normal(0, [2.0, 1.2, 0.004, 0.004], (1, 4)) * pace
    shake = rng.normal(0, [0.4, 0.4, 0.0008, 0.0008], (frames, 4)) * (rng.random() < 0.5)
    return speed * np.arange(frames)[:, None] + shake


def _view(image: np.ndarray, centre: tuple[float, float], pose: np.ndarray, size: int) -> np.ndarray:
    """The `size` x `size` view of `image` around `centre`, moved by `pose`."""
    dx, dy, zoom, angle = pose
    cos, sin = np.cos(angle) * np.exp(zoom), np.sin(angle) * np.exp(zoom)
    half = (size - 1) / 2
    x, y = centre[0] + dx, centre[1] + dy
    matrix = np.array([[cos, -sin, x - cos * half + sin * half], [sin, cos, y - sin * half - cos * half]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def photo_clip(image: np.ndarray, frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A camera moving over a photo: pan, zoom, rotation, and on some clips a nearer layer with a motion of its own.

    The photo is reduced by up to what makes the view nearly all of it: a frame of video shows a whole scene in few
    pixels, where a photo's own pixels show little of it and are soft. Half of the clips see it turned by any angle and
    squeezed along one side: a hundred photos are soon learnt by heart.
    """
    squeeze, angle = 1.0, 0.0
    if rng.random() < 0.5:
        squeeze, angle = rng.uniform(0.7, 1.0), rng.uniform(-np.pi, np.pi)
        image = np.ascontiguousarray(np.rot90(image, int(rng.integers(2))))
    across = size * (abs(np.cos(angle)) + abs(np.sin(angle))) + 8  # how wide the turned view is
    squeeze = min(1.0, max(squeeze, across / image.shape[1]))
    least = min(1.0, across / min(image.shape[0], image.shape[1] * squeeze))
    image = shrink(image, least ** rng.uniform(), squeeze)
    height, width = image.shape[:2]
    turn = np.array([0, 0, 0, angle])

    def centre() -> tuple[float, float]:
        half = (across - 8) / 2
        return rng.uniform(half, max(width - half, half + 1)), rng.uniform(half, max(height - half, half + 1))

    back_centre, back_path = centre(), _pose(rng, frames) + turn
    clip = np.stack([_view(image, back_centre, pose, size) for pose in back_path])
    if rng.random() < 0.3:
        front_centre, front_path = centre(), _pose(rng, frames) * 2 + turn
        front = np.stack([_view(image, front_centre, pose, size) for pose in front_path])
        clip = _in_front(clip, front, front_path, rng)
    return clip


def _in_front(clip: np.ndarray, front: np.ndarray, path: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`clip` behind an ellipse of `front`, both (frames, size, size, 3), that moves along `path`."""
    size = clip.shape[1]
    mask = np.zeros((size, size), np.float32)
    axes = tuple(int(a) for a in rng.integers(size // 6, size // 3, 2))
    at = tuple(int(c) for c in rng.integers(size // 4, 3 * size // 4, 2))
    cv2.ellipse(mask, at, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    shown = []
    for behind, before, pose in zip(clip, front, path, strict=True):
        shift = np.array([[1, 0, -pose[0]], [0, 1, -pose[1]]])
        moved = cv2.GaussianBlur(cv2.warpAffine(mask, shift, (size, size)), (0, 0), 0.7)[..., None]
        shown.append(np.rint(before * moved + behind * (1 - moved)).astype(np.uint8))
    return np.stack(shown)


def video_frames(path: Path, stride_seconds: float, frames: int) -> Iterator[np.ndarray]:
    """Runs of `frames` consecutive frames of one size (frames, h, w, 3), one every `stride_seconds`; where the size
    changes, a run begins anew. InputError if unreadable.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            skip = max(0, round(stride_seconds * float(stream.average_rate or 25)) - frames)
            run: list[np.ndarray] = []
            waiting = 0
            for frame in container.decode(stream):
                if waiting:
                    waiting -= 1
                    continue
                image = frame.to_ndarray(format="rgb24", threads=1)
                if run and image.shape != run[0].shape:
                    run = []
                run.append(image)
                if len(run) == frames:
                    yield np.stack(run)
                    run, waiting = [], skip
    except (FFmpegError, IndexError, ValueError) as error:
        raise InputError(f"not a readable video: {show(path)}") from error


def video_clip(run: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """A square window of real footage, sometimes reduced first; None if the frames are too small."""
    shortest = min(run.shape[1:3])
    if shortest < size:
        return None
    factor = max(rng.uniform(0.6, 1.0), size / shortest)
    if factor < 1:
        run = np.stack([shrink(frame, factor) for frame in run])
    y = rng.integers(0, run.shape[1] - size + 1)
    x = rng.integers(0, run.shape[2] - size + 1)
    return run[:, y : y + size, x : x + size]
