"""Where a run keeps what it has done: finished scores, frames that wait for scoring, pictures for the report."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdatc_cli.errors import OutputError

from .methods import slug
from .scoring import RawVideo


@dataclass(frozen=True)
class Unit:
    """One method on one clip at one CRF; what is resumed. `method` "truth" is the ground truth, at CRF 0."""

    method: str
    clip: str
    crf: int

    @property
    def stem(self) -> str:
        """A relative path without a suffix."""
        return f"{slug(self.method)}/crf{self.crf}/{self.clip}"


class Workspace:
    """A folder with units/ (scores), pictures/ and, while running, raw/ (frames). `kept`: not a temporary one."""

    def __init__(self, folder: Path, kept: bool):
        self.folder, self.kept = folder, kept

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    def load_unit(self, unit: Unit, fingerprint: dict[str, Any]) -> dict[str, Any] | None:
        """A finished unit's results, or None if it is not there or was made in another way."""
        stored = read_json(self.folder / "units" / f"{unit.stem}.json")
        return stored["result"] if stored and stored.get("fingerprint") == plain(fingerprint) else None

    def save_unit(self, unit: Unit, fingerprint: dict[str, Any], result: dict[str, Any]) -> None:
        write_json(self.folder / "units" / f"{unit.stem}.json", {"fingerprint": fingerprint, "result": result})

    def load_frames(self, unit: Unit, fingerprint: dict[str, Any]) -> tuple[RawVideo, dict[str, Any]] | None:
        """Restored frames that an interrupted run left, with the speed they were restored at."""
        path = self.raw(unit)
        stored = read_json(path.with_suffix(".json"))
        if not stored or stored.get("fingerprint") != plain(fingerprint) or not path.is_file():
            return None
        video = RawVideo(path, tuple(stored["frames"]), stored["height"], stored["width"])
        if path.stat().st_size != len(video.frames) * video.height * video.width * 3:
            return None
        return video, stored["speed"]

    def raw(self, unit: Unit) -> Path:
        """Where the frames of a unit wait for scoring."""
        return self.folder / "raw" / f"{unit.stem}.rgb"

    def note_frames(self, unit: Unit, fingerprint: dict[str, Any], video: RawVideo, speed: dict[str, Any]) -> None:
        """Tells a resumed run that the frames at `raw(unit)` are whole, and how they were made."""
        told = {**asdict(video), "path": None, "speed": speed, "fingerprint": fingerprint}
        write_json(self.raw(unit).with_suffix(".json"), told)

    def drop_frames(self, unit: Unit) -> None:
        """Frees the disk of frames that are scored."""
        for suffix in (".json", ".rgb"):
            self.raw(unit).with_suffix(suffix).unlink(missing_ok=True)

    def finish(self) -> None:
        """Removes what only a resumed run would need."""
        shutil.rmtree(self.folder / "raw", ignore_errors=True)


def export_png(
    folder: Path, images: Sequence[np.ndarray] | np.ndarray, frames: Sequence[int], wanted: Sequence[int]
) -> None:
    """Writes the wanted ones of `frames` as 00000000.png, ... named by their index, in place of an earlier run's."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{'[0-9]' * 8}.png"):
        old.unlink()
    for index, image in zip(frames, images, strict=True):
        if index in wanted:
            Image.fromarray(image).save(folder / f"{index:08d}.png", compress_level=1)


@contextmanager
def opened(out: Path | None, resume: bool, overwrite: bool) -> Iterator[Workspace]:
    """The workspace of a run: the report folder, or a temporary one without it.

    OutputError when the folder holds something and neither `resume` nor `overwrite` is given, or cannot be written.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="sdatc-bench-") as folder:
            yield Workspace(Path(folder), kept=False)
        return
    try:
        _clear(out, resume, overwrite)
        out.mkdir(parents=True, exist_ok=True)
        (out / "units").mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"report folder {out} cannot be written: {error.strerror or error}") from error
    yield Workspace(out, kept=True)


def _clear(out: Path, resume: bool, overwrite: bool) -> None:
    """Removes an earlier report that may be overwritten. OutputError where there is something that may not; OSError."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; the report needs a folder")
    if not out.is_dir() or resume or not any(out.iterdir()):
        return
    if not overwrite:
        raise OutputError(f"report folder {out} is not empty; use --resume to go on with it, or -y to start again")
    if (out / "units").is_dir():  # else it is no report folder, and nothing in it is ours to remove
        for name in ("units", "raw", "pictures", "frames"):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in ("report.json", "report.html"):
            (out / name).unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    return json.loads(json.dumps(value, default=str))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none or it was cut short."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def write_json(path: Path, value: Any) -> None:
    """Writes whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.part")
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False, allow_nan=False)
    fresh.write_bytes(text.encode(errors="backslashreplace"))  # names need not be Unicode; JSON reads such escapes
    fresh.replace(path)
