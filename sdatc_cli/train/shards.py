"""Training shards: safetensors files that hold HR clips as JPEG bytes and their LQ versions as pixels.

One shard: `lq` (clips, frames, h, w, 3) uint8; `hr` all JPEG files end to end (4:4:4, quality 95); `ends` (clips *
frames) where each of them ends; `quantiser` (clips,) float32, NaN where it is not known (media/quantiser.py). The
header carries the version and how the shard was made.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sdatc_cli.errors import InputError, OutputError

VERSION = "2"
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True)
class ClipPair:
    """`hr` (frames, 4h, 4w, 3) and `lq` (frames, h, w, 3), both uint8 RGB, and the quantiser, None if not known."""

    hr: np.ndarray
    lq: np.ndarray
    quantiser: float | None = None


def _serialize(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """A safetensors file. The library writes its header in random order; sorted, the same data give the same file."""
    content = save(tensors, metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def write_shard(path: Path, pairs: Sequence[ClipPair], recipe: dict[str, object]) -> None:
    """Write beside and rename, so that a shard under its final name is whole. OutputError when that fails."""
    jpegs = [cv2.imencode(".jpg", f[..., ::-1], JPEG)[1].ravel() for pair in pairs for f in pair.hr]
    tensors = {
        "lq": np.stack([pair.lq for pair in pairs]),
        "hr": np.concatenate(jpegs),
        "ends": np.cumsum([len(j) for j in jpegs], dtype=np.int64),
        "quantiser": np.array([pair.quantiser for pair in pairs], np.float32),
    }
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(_serialize(tensors, {"version": VERSION, "recipe": json.dumps(recipe)}))
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error}; free some space and run the same command again") from error


class Shard:
    """One shard in memory; frames are decoded when asked for. InputError for a damaged or foreign file."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                version = metadata.get("version")
                if version != VERSION:
                    raise InputError(
                        f"{path} is of shard version {version}, this program reads {VERSION}; prepare it anew"
                    )
                self.source: str = json.loads(metadata["recipe"]).get("source", path.name)  # the photo or video
                self.lq, self.hr, self.ends, self.quantiser = (
                    file.get_tensor(name) for name in ("lq", "hr", "ends", "quantiser")
                )
        except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{path} is not a training shard: {error}") from error
        if wrong := self._misfit():
            raise InputError(f"{path} is damaged: {wrong}")

    def _misfit(self) -> str | None:
        """Which tensor is not what it should be, and why; None when all are."""
        lq, hr, ends, quantiser = self.lq, self.hr, self.ends, self.quantiser
        if lq.dtype != np.uint8 or lq.ndim != 5 or lq.shape[2] != lq.shape[3] or lq.shape[4] != 3:
            return f"lq holds {lq.dtype} of shape {lq.shape}, not uint8 of (clips, frames, h, h, 3)"
        if not lq.size:
            return "it holds no clips"
        if hr.dtype != np.uint8 or hr.ndim != 1:
            return f"hr holds {hr.dtype} of shape {hr.shape}, not bytes"
        frames = len(lq) * self.frames
        if ends.dtype != np.int64 or ends.shape != (frames,):
            return f"ends holds {ends.dtype} of shape {ends.shape}, not int64 of ({frames},)"
        if ends[0] <= 0 or (np.diff(ends) <= 0).any() or ends[-1] != len(hr):
            return f"ends does not tell where the {frames} pictures in the {len(hr)} bytes of hr end"
        if quantiser.dtype != np.float32 or quantiser.shape != (len(lq),):
            return f"quantiser holds {quantiser.dtype} of shape {quantiser.shape}, not float32 of ({len(lq)},)"
        return None

    def __len__(self) -> int:
        return len(self.lq)

    @property
    def frames(self) -> int:
        return self.lq.shape[1]

    def hr_frame(self, clip: int, frame: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB. InputError for a damaged picture."""
        at = clip * self.frames + frame
        start = self.ends[at - 1] if at else 0
        image = cv2.imdecode(self.hr[start : self.ends[at]], cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{self.path} is damaged: frame {frame} of clip {clip} cannot be decoded")
        return image[..., ::-1]


def open_shards(folder: Path, known: Sequence[Shard] = ()) -> list[Shard]:
    """Every shard of a folder, in name order; those `known` are not read again. InputError if there is none."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"no shards in {folder}; make some with: sdatc train prepare")
    read = {shard.path: shard for shard in known}
    return [read.get(path) or Shard(path) for path in paths]
