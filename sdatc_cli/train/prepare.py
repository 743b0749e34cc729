"""`sdatc train prepare`: photos and videos -> shards. The same sources and seed give the same shards."""

import hashlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from sdatc_cli.engine.orphans import end_with_parent
from sdatc_cli.errors import DeviceError, InputError, OutputError, UsageError
from sdatc_cli.media.container import one_line, show
from sdatc_models.weights import sha256

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
from .shards import ClipPair, Shard, write_shard

WINDOW = 512  # HR edge that is encoded as one picture; motion prediction then works as in a real video
RUN = 15  # frames that are encoded together
SHARD_WINDOWS = 8  # of a photo, in one shard
NAME = 200  # bytes of a source's name that its shards are called by


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


@dataclass(frozen=True)
class Part:
    """What one shard is made of: `windows` moving windows of a photo, or a whole video (0)."""

    source: Path
    target: Path
    windows: int
    seed: int


def parts(sources: Sequence[Path], out: Path, plan: PreparePlan) -> list[Part]:
    """The shards to be made, a part of every source before the second one of any: what is there early is varied."""
    found: list[tuple[int, Part]] = []
    for source, identity in _identities(sources):
        windows = plan.per_photo if source.suffix.lower() in PHOTO_SUFFIXES else 0
        for first in range(0, max(windows, 1), SHARD_WINDOWS):
            words = f"{identity}:{plan}:{first}"
            digest = hashlib.sha256(words.encode(errors="surrogatepass")).digest()
            target = out / f"{_plain(source.stem)}-{digest.hex()[:8]}.safetensors"
            seed = int.from_bytes(digest[:8], "big")
            found.append((first, Part(source, target, min(SHARD_WINDOWS, windows - first) if windows else 0, seed)))
    return [part for _, part in sorted(found, key=lambda numbered: numbered[0])]


def _plain(name: str) -> str:
    """A name that every file system takes with what is put behind it; only the longest and those that are not Unicode
    change."""
    return name.encode(errors="ignore")[:NAME].decode(errors="ignore")


def _trouble(path: Path) -> str | None:
    """Why a source cannot even be opened; None where it can."""
    try:
        if not path.is_file():
            return f"not a file, or a link that leads nowhere: {show(path)}"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({one_line(error)}): {show(path)}"
    return None


def _identities(sources: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each source with what tells it from the others, copies of a file once: its name and size, which stay when its
    folder is moved, and where several share them, as frames of different films do, its content as well."""
    seen: set[str] = set()
    plain = {source: f"{source.name}:{source.stat().st_size}" for source in sources}
    shared = Counter(plain.values())
    for source, identity in plain.items():
        if shared[identity] > 1:
            identity += f":{sha256(source)}"
        if identity not in seen:
            seen.add(identity)
            yield source, identity


def clip_pairs(part: Part, plan: PreparePlan) -> list[ClipPair]:
    """All clip pairs of a part; none where the source is flat. InputError where it cannot be read, or is too small or
    too short."""
    pairs: list[ClipPair] = []
    rng = np.random.default_rng(part.seed)
    if part.windows:
        photo = read_photo(part.source)
        if min(photo.shape[:2]) < WINDOW:
            raise InputError(f"too small for a {WINDOW} pixel window: {show(part.source)}")
        for _ in range(part.windows):
            pairs += cut(photo_clip(photo, RUN, WINDOW, rng), plan, rng)
        return pairs
    run = None
    for run in video_frames(part.source, plan.stride, RUN):
        for _ in range(plan.per_video_run):
            clip = video_clip(run, min(WINDOW, *run.shape[1:3]), rng)
            if clip is not None and clip.shape[1] >= WINDOW:
                pairs += cut(clip, plan, rng)
            elif clip is not None:
                pairs += cut(np.pad(clip, _square(clip), mode="symmetric"), plan, rng)
    if run is None:
        raise InputError(f"fewer than {RUN} frames of one size in a row: {show(part.source)}")
    return pairs


def _square(clip: np.ndarray) -> list[tuple[int, int]]:
    """Padding that brings a smaller clip to WINDOW at the bottom and right."""
    return [(0, 0), (0, WINDOW - clip.shape[1]), (0, WINDOW - clip.shape[2]), (0, 0)]


def make_shard(part: Part, plan: PreparePlan) -> str | None:
    """Writes the shard of a part, or says why there is none. A shard already there is kept."""
    if part.target.exists():
        return None
    try:
        pairs = clip_pairs(part, plan)
    except InputError as error:
        return str(error)
    if not pairs:
        return f"nothing but flat areas: {show(part.source)}"
    write_shard(part.target, pairs, {"source": part.source.name, **plan.__dict__})
    return None


def prepare(
    photos: Path | None,
    videos: Path | None,
    out: Path,
    plan: PreparePlan,
    progress: Callable[[int, int], None],
    workers: int = 1,
) -> tuple[int, list[str]]:
    """The shards of all sources, made by so many processes; resumable. Returns (how many there are, sources left out
    and why).

    `progress` hears how many are done and of how many. InputError when no source gives a clip, OutputError, DeviceError
    when a process comes to a sudden end.
    """
    sources = find_files(photos, PHOTO_SUFFIXES) if photos else []
    sources += find_files(videos, VIDEO_SUFFIXES) if videos else []
    if not sources:
        raise InputError("no photos or videos found to make shards from")
    new = not os.path.lexists(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"{show(out)} is a file; the shards need a folder") from error
    except OSError as error:
        raise OutputError(f"{show(out)} cannot be written: {one_line(error)}") from error
    _check_patch(out, plan)
    made, left_out = 0, {source: reason for source in sources if (reason := _trouble(source)) is not None}
    wanted = parts([source for source in sources if source not in left_out], out, plan)
    progress(0, len(wanted))
    for done, (part, reason) in enumerate(_made(wanted, plan, workers), 1):
        if reason is None:
            made += 1
        else:
            left_out[part.source] = reason
        progress(done, len(wanted))
    if not made:
        if new:
            with suppress(OSError):
                out.rmdir()
        others = f", nor in {len(sources) - 1} more" if len(sources) > 1 else ""
        raise InputError(f"nothing usable: {left_out[sources[0]]}{others}")
    return made, [left_out[source] for source in sources if source in left_out]


def _check_patch(out: Path, plan: PreparePlan) -> None:
    """UsageError where the folder holds shards of other patches, which no stage could take together with these."""
    edge = plan.patch
    for path in sorted(out.glob("*.safetensors"))[:1]:
        with suppress(InputError):  # a broken one is told by those who want to read it
            edge = Shard(path).lq.shape[2] * SCALE
    if edge != plan.patch:
        raise UsageError(f"{show(out)} holds clips of {edge} pixels: give another folder, or --patch {edge}")


def _made(wanted: Sequence[Part], plan: PreparePlan, workers: int) -> Iterator[tuple[Part, str | None]]:
    """Each part as it is done, with the reason where there is no shard of it."""
    if workers == 1:
        yield from ((part, make_shard(part, plan)) for part in wanted)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker)
    try:
        pending = {pool.submit(make_shard, part, plan): part for part in wanted}
        for future in as_completed(pending):
            yield pending[future], future.result()
    except BrokenProcessPool as error:
        raise DeviceError(
            "a process that made shards ended suddenly, perhaps for want of memory; what is done is kept, run the same "
            "command with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """One core a process, and a silent end at Ctrl-C and when the parent has gone."""
    cv2.setNumThreads(1)
    end_with_parent()
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
