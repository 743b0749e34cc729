"""`sdatc train teach`: what Real-ESRGAN makes of the damaged small frames, as a target for the DCM.

Its result is sharp and a function of what the DCM sees, so nearness to it teaches what an adversarial loss would have
to find. One JPEG for the middle frame of a clip, SHARDS/taught/<shard>-<clip>.jpg.
"""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from sdatc_cli.bench.methods import RealESRGAN
from sdatc_cli.errors import InputError, OutputError

from .clips import read_photo
from .shards import JPEG, Shard, open_shards

TAUGHT = "taught"


def taught_frame(shard: Shard) -> int:
    """Which frame of each clip the teacher's picture is of."""
    return shard.frames // 2


def taught_pictures(shards: Path) -> dict[tuple[str, int], Path]:
    """The pictures beside `shards`, by shard name and clip."""
    found = {}
    for path in sorted((shards / TAUGHT).glob("*-*.jpg")):
        shard, _, clip = path.stem.rpartition("-")
        if clip.isdecimal():
            found[shard, int(clip)] = path
    return found


def read_taught(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. InputError for a damaged picture."""
    try:
        return read_photo(path)
    except InputError as error:
        raise InputError(f"{path} is damaged; delete it and run sdatc train teach again") from error


def teach(shards: Path, share: float, seed: int, progress: Callable[[int, int], None]) -> tuple[int, int]:
    """Make the pictures of a `share` of all clips, drawn by `seed`; those there are kept. (made anew, in all).

    InputError without shards, ModelError without the packages of the extra "peers", OutputError when writing fails.
    """
    clips = [(shard, clip) for shard in open_shards(shards) for clip in range(len(shard))]
    order = np.random.default_rng(seed).permutation(len(clips))[: max(1, round(share * len(clips)))]
    have = taught_pictures(shards)
    todo = [clips[i] for i in order if (clips[i][0].path.stem, clips[i][1]) not in have]
    teacher = RealESRGAN("real-esrgan", {})
    teacher.load()
    for done, (shard, clip) in enumerate(todo):
        progress(done, len(todo))
        image = teacher.enlarge(shard.lq[clip, taught_frame(shard)])
        content = cv2.imencode(".jpg", image[..., ::-1], JPEG)[1].tobytes()
        path = shards / TAUGHT / f"{shard.path.stem}-{clip}.jpg"
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(content)
            os.replace(partial, path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; run the same command again") from error
    return len(todo), len(order)
