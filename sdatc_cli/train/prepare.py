"""`sdatc train prepare`: photos and videos -> shards. The same sources and seed give the same shards."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdatc_cli.errors import InputError

from .clips import (
    PHOTO_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    photo_clip,
    read_photo,
    sharpened,
    video_clip,
    video_frames,
)
from .degradation import SCALE, degrade_clip, random_damage
from .shards import ClipPair, write_shard

WINDOW = 512  # HR edge that is encoded as one picture; motion prediction then works as in a real video
RUN = 15  # frames that are encoded together


@dataclass(frozen=True)
class PreparePlan:
    """How much to make: `per_photo` windows a photo, one window each `stride` seconds of video, `patch` HR edge."""

    per_photo: int = 6
    per_video_run: int = 2
    stride: float = 1.5
    frames: int = 5
    patch: int = 256
    seed: int = 0


def cut(hr: np.ndarray, plan: PreparePlan, rng: np.random.Generator) -> list[ClipPair]:
    """Degrade a window and cut it into patch clips at one random moment."""
    hr = sharpened(hr, rng)
    lq, quantiser = degrade_clip(hr, random_damage(rng, (WINDOW // SCALE) ** 2))
    first = int(rng.integers(0, RUN - plan.frames + 1))
    when = slice(first, first + plan.frames)
    small = plan.patch // SCALE
    pairs = []
    for y in range(0, WINDOW - plan.patch + 1, plan.patch):
        for x in range(0, WINDOW - plan.patch + 1, plan.patch):
            here = hr[when, y : y + plan.patch, x : x + plan.patch]
            there = lq[when, y // SCALE : y // SCALE + small, x // SCALE : x // SCALE + small]
            if here[0].std() > 4:  # a flat patch teaches nothing
                pairs.append(ClipPair(here, there, quantiser))
    return pairs


def source_pairs(path: Path, plan: PreparePlan, rng: np.random.Generator) -> list[ClipPair]:
    """All clip pairs of one photo or video."""
    pairs: list[ClipPair] = []
    if path.suffix.lower() in PHOTO_SUFFIXES:
        photo = read_photo(path)
        for _ in range(plan.per_photo if min(photo.shape[:2]) >= WINDOW else 0):
            pairs += cut(photo_clip(photo, RUN, WINDOW, rng), plan, rng)
        return pairs
    for run in video_frames(path, plan.stride, RUN):
        for _ in range(plan.per_video_run):
            clip = video_clip(run, min(WINDOW, *run.shape[1:3]), rng)
            if clip is not None and clip.shape[1] >= WINDOW:
                pairs += cut(clip, plan, rng)
            elif clip is not None:
                pairs += cut(np.pad(clip, _square(clip), mode="symmetric"), plan, rng)
    return pairs


def _square(clip: np.ndarray) -> list[tuple[int, int]]:
    """Padding that brings a smaller clip to WINDOW at the bottom and right."""
    return [(0, 0), (0, WINDOW - clip.shape[1]), (0, WINDOW - clip.shape[2]), (0, 0)]


def prepare(
    photos: Path | None, videos: Path | None, out: Path, plan: PreparePlan, progress: Callable[[int, int, str], None]
) -> tuple[int, list[str]]:
    """One shard a source. Shards already there are kept (resumable). Returns (clips made, what was left out and why).

    Raises InputError when no source gives a clip.
    """
    sources = find_files(photos, PHOTO_SUFFIXES) if photos else []
    sources += find_files(videos, VIDEO_SUFFIXES) if videos else []
    if not sources:
        raise InputError("no photos or videos found to make shards from")
    out.mkdir(parents=True, exist_ok=True)
    made, skipped = 0, []
    for i, path in enumerate(sources):
        progress(i, len(sources), path.name)
        digest = hashlib.sha256(f"{path.name}:{path.stat().st_size}:{plan}".encode()).digest()
        target = out / f"{path.stem}-{digest.hex()[:8]}.safetensors"
        if target.exists():
            made += 1
            continue
        try:
            pairs = source_pairs(path, plan, np.random.default_rng(int.from_bytes(digest[:8], "big")))
        except InputError as error:
            skipped.append(str(error))
            continue
        if not pairs:
            skipped.append(f"too small for a {WINDOW} pixel window: {path}")
            continue
        write_shard(target, pairs, {"source": path.name, **plan.__dict__})
        made += 1
    progress(len(sources), len(sources), "")
    if not made:
        raise InputError(f"nothing usable: {skipped[0]}")
    return made, skipped
