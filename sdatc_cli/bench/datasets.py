"""The test sets: where their clips lie, how many frames of which size each must have, and how to read them."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdatc_cli.errors import InputError, UsageError
from sdatc_cli.media.images import eight_bits
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import FrameReader
from sdatc_cli.media.write import upright

IMAGE_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
VIDEO_SUFFIXES = (".mkv", ".avi", ".mp4", ".mov", ".y4m", ".webm")
MULTIPLE = 8  # edges are cropped to this: four times a frame whose chroma is halved
MIN_EDGE = 64


@dataclass(frozen=True)
class KnownSet:
    """A published test set. `clips`: frame counts by name; `size`: (width, height) where all clips agree."""

    title: str
    page: str
    clips: dict[str, int]
    size: tuple[int, int] | None
    aliases: dict[str, str]


REDS4_CLIPS = ("000", "011", "015", "020")
UDM10_CLIPS = (
    *("archpeople", "archwall", "auditorium", "band", "caffe"),
    *("camera", "clap", "lake", "photography", "polyflow"),
)
KNOWN = {
    "vid4": KnownSet(
        title="Vid4",
        page="https://github.com/yhjo09/VSR-DUF (inputs/G)",
        clips={"calendar": 41, "city": 34, "foliage": 49, "walk": 47},
        size=None,
        aliases={},
    ),
    "reds4": KnownSet(
        title="REDS4",
        page="https://seungjunnah.github.io/Datasets/reds.html (train_sharp, clips 000, 011, 015, 020)",
        clips=dict.fromkeys(REDS4_CLIPS, 100),
        size=(1280, 720),
        aliases={},
    ),
    "udm10": KnownSet(
        title="UDM10",
        page="https://github.com/psychopa4/PFNL (test sets)",
        clips=dict.fromkeys(UDM10_CLIPS, 32),
        size=(1272, 720),
        aliases={f"{i:03d}": name for i, name in enumerate(UDM10_CLIPS)},
    ),
}
FOLDERS = ("", "GT", "HR", "train_sharp", "train/train_sharp")  # under the data folder or the set's own folder in it


@dataclass(frozen=True)
class Clip:
    """One ground-truth clip: a folder of images or one video. `frames` is its full length where that is known."""

    name: str
    path: Path
    frames: int | None
    size: tuple[int, int] | None

    def read(self, limit: int | None = None) -> list[np.ndarray]:
        """The first `limit` frames (all without one), each (H, W, 3) RGB uint8, upright as a player shows them, edges
        cropped to a multiple of 8.

        InputError for a wrong size, a wrong count, or frames that change size.
        """
        images: list[np.ndarray] = []
        info = probe(self.path)
        with FrameReader(info) as reader:
            for frame in reader:
                if limit is not None and len(images) == limit:
                    break
                images.append(upright(eight_bits(frame.image), info))
        self._check(images, limit)
        height, width = (edge // MULTIPLE * MULTIPLE for edge in images[0].shape[:2])
        return [np.ascontiguousarray(image[:height, :width]) for image in images]

    def _check(self, images: list[np.ndarray], limit: int | None) -> None:
        if not images:
            raise InputError(f"clip {self.name}: no frame of {self.path} could be read")
        height, width = images[0].shape[:2]
        if self.size is not None and (width, height) != self.size:
            raise InputError(f"clip {self.name}: {width}x{height}, expected {self.size[0]}x{self.size[1]}: {self.path}")
        if min(height, width) < MIN_EDGE:
            raise InputError(f"clip {self.name}: {width}x{height} is too small, {MIN_EDGE}x{MIN_EDGE} is the least")
        for index, image in enumerate(images):
            if image.shape != images[0].shape:
                other = f"{image.shape[1]}x{image.shape[0]}"
                raise InputError(f"clip {self.name}: frame {index} is {other}, the first is {width}x{height}")
        wanted = self.frames if limit is None or self.frames is None else min(limit, self.frames)
        if wanted is not None and len(images) != wanted:
            raise InputError(f"clip {self.name}: {len(images)} frames, expected {wanted}: {self.path}")

    def digest(self) -> str:
        """SHA-256 over the bytes of the clip's files, in order."""
        total = hashlib.sha256()
        for path in frame_files(self.path) if self.path.is_dir() else [self.path]:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A test set as found on disk. `key` names its published rows ("vid4", ...), or is the folder's own name."""

    key: str
    title: str
    clips: tuple[Clip, ...]


def frame_files(folder: Path) -> list[Path]:
    """The images of a clip's folder in the order of their numbers."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(files, key=lambda path: (frame_number(path) if frame_number(path) is not None else -1, path.name))


def frame_number(path: Path) -> int | None:
    """The last number in a file's name, or None."""
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else None


def check_numbering(name: str, files: list[Path]) -> None:
    """InputError naming the frames that are missing between the first and the last of a folder."""
    numbers = [number for path in files if (number := frame_number(path)) is not None]
    if len(numbers) < 2:
        return
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if missing:
        listed = ", ".join(str(number) for number in missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise InputError(f"clip {name}: {len(missing)} of its frames are missing ({listed}): {files[0].parent}")


def find(dataset: str, data: Path | None) -> Dataset:
    """The test set `dataset` ("vid4", "reds4", "udm10", or a folder of clips) under the folder `data`.

    UsageError for a name that is neither, InputError when the set is not there, or a clip is incomplete.
    """
    if dataset.lower() in KNOWN:
        return _find_known(dataset.lower(), data or Path())
    folder = Path(dataset)
    if not folder.is_dir() and data is not None:
        folder = data / dataset
    if not folder.is_dir():
        raise UsageError(f"unknown dataset {dataset!r}: use {', '.join(KNOWN)}, or a folder of clips")
    return _find_folder(folder)


def _find_known(key: str, data: Path) -> Dataset:
    known = KNOWN[key]
    roots = [data / own / inner for own in ("", known.title, key) for inner in FOLDERS]
    best: dict[str, Path] = {}
    for root in roots:
        found = {name: path for name in known.clips if (path := _clip_path(root, name, known.aliases)) is not None}
        if len(found) > len(best):
            best = found
    missing = [name for name in known.clips if name not in best]
    if missing:
        raise InputError(_advice(known, data, missing))
    clips = []
    for name, count in known.clips.items():
        if best[name].is_dir():
            _check_folder(name, best[name], count)
        clips.append(Clip(name, best[name], count, known.size))
    return Dataset(key, known.title, tuple(clips))


def _clip_path(root: Path, name: str, aliases: dict[str, str]) -> Path | None:
    """A clip's folder of images or its video under `root`, or None."""
    for candidate in (name, *(alias for alias, target in aliases.items() if target == name)):
        for folder in (root / candidate / "truth", root / candidate):
            if folder.is_dir() and frame_files(folder):
                return folder
        for suffix in VIDEO_SUFFIXES:
            if (root / f"{candidate}{suffix}").is_file():
                return root / f"{candidate}{suffix}"
    return None


def _advice(known: KnownSet, data: Path, missing: list[str]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in known.clips.items())
    return (
        f"{known.title}: no clip {', '.join(missing)} under {data}; get the set from {known.page} and lay it out as "
        f"{data}/CLIP/*.png or {data}/CLIP.mkv (lossless) with this many frames: {counts}"
    )


def _check_folder(name: str, folder: Path, count: int | None) -> None:
    files = frame_files(folder)
    check_numbering(name, files)
    if count is not None and len(files) != count:
        raise InputError(f"clip {name}: {len(files)} frames, expected {count}: {folder}")


def _find_folder(folder: Path) -> Dataset:
    """Every sub-folder with images and every video of a folder is a clip."""
    clips = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and frame_files(path):
            _check_folder(path.name, path, None)
            clips.append(Clip(path.name, path, len(frame_files(path)), None))
        elif path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
            clips.append(Clip(path.stem, path, None, None))
    if not clips:
        raise InputError(f"no clips in {folder}: expected CLIP/*.png folders or one lossless video a clip")
    names = [clip.name for clip in clips]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two clips are called {name} in {folder}: a folder and a video, or two videos")
    return Dataset(folder.resolve().name, folder.resolve().name, tuple(clips))
