"""A benchmark run: compress, restore, score, clip by clip; what was done before is not done again."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sdatc_cli.errors import SdatcError, UsageError

from . import library, pictures
from .datasets import Clip, Dataset
from .inputs import Compressed, compress, recipe_for
from .methods import Job, Method, slug
from .scoring import Plan, RawVideo, Scores
from .worker import Child, load_method, restore, score, warm_up
from .workspace import Unit, Workspace, export_png

PROCESSES = 3  # of methods that are kept for the next clip
QUICK = 5  # with at most so many frames a clip, the default metrics look at VGG16 only for the middle one

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Settings:
    """What to run. `frames`: the first so many of each clip (None: all); every `every`-th is scored.

    `quick`: metrics built on VGG16 look at one frame a clip. `save_frames`: keep the scored frames as PNGs.
    """

    dataset: Dataset
    methods: Sequence[Method]
    crfs: tuple[int, ...]
    kernel: str
    names: tuple[str, ...]
    frames: int | None = None
    every: int = 1
    quick: bool = False
    save_frames: bool = False
    score_device: str = "cpu"


@dataclass
class Outcome:
    """All results: one entry for each unit, the ground truth's own under the method "truth".

    `sets`: what was computed over all clips of a method at once; `failed`: metrics of that kind that were not.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    reused: int = 0


@dataclass
class _Pending:
    """One clip whose versions are restored and being scored."""

    clip: Clip
    truth: RawVideo
    units: list[tuple[Unit, dict[str, Any], RawVideo, dict[str, Any]]]
    future: "Future[list[Scores]]"


class Run:
    """Carries one run out; `progress` counts frames restored and scored."""

    def __init__(self, settings: Settings, workspace: Workspace, progress: Progress, notice: Callable[[str], None]):
        names = [slug(method.name) for method in settings.methods]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two methods are called {name!r}; give each its own name")
            if name in (pictures.INPUT, pictures.TRUTH):
                raise UsageError(f"a method cannot be called {name!r}")
        self.settings, self.workspace = settings, workspace
        self.report_progress, self.notice = progress, notice
        self.outcome = Outcome()
        self.loaded: set[str] = set()
        self.children: dict[str, Child] = {}
        self.done = 0
        counts = [clip.frames or settings.frames or 0 for clip in settings.dataset.clips]
        lengths = [min(count, settings.frames or count) for count in counts]
        self.total = sum(lengths) * (len(settings.methods) * len(settings.crfs) + 1)

    def __call__(self) -> Outcome:
        """Runs everything. Raises what a bad input raises; finished units stay in the workspace."""
        overlap = all(method.device.startswith(("cuda", "vulkan")) for method in self.settings.methods if method.timed)
        waiting: list[_Pending] = []
        with Child("scoring", self._advance) as scorer, self._children():
            scorer.submit(warm_up, self.settings.names, self.settings.score_device)
            for clip in self.settings.dataset.clips:
                waiting += self._restore_clip(clip, scorer)
                while waiting and (not overlap or len(waiting) > 1):
                    self._collect(waiting.pop(0), scorer)
            for pending in waiting:
                self._collect(pending, scorer)
        if "fid" in self.settings.names:
            self._score_sets()
        return self.outcome

    @contextmanager
    def _children(self) -> Iterator[None]:
        """Ends the methods' processes, at once if something went wrong."""
        try:
            yield
        except BaseException:
            for child in self.children.values():
                child.close(at_once=True)
            raise
        for child in self.children.values():
            child.close()

    def _score_sets(self) -> None:
        """FID, which compares all scored frames of all clips at once."""
        frames = self.workspace.folder / "frames"
        for method in self.settings.methods:
            for crf in self.settings.crfs:
                try:
                    folder = frames / slug(method.name) / f"crf{crf}"
                    value = library.fid(folder, frames / pictures.TRUTH, self.settings.score_device)
                    self.outcome.sets.append({"method": method.name, "crf": crf, "metrics": {"fid": value}})
                except SdatcError as error:
                    self.outcome.failed["fid"] = str(error)

    def _advance(self, count: int = 1) -> None:
        self.done += count
        self.report_progress(self.done, max(self.total, self.done))

    def _restore_clip(self, clip: Clip, scorer: Child) -> list[_Pending]:
        """Restores what is missing of one clip and starts its scoring; nothing is returned if nothing was missing."""
        truth = clip.read(self.settings.frames)
        digest = clip.digest()
        units = []
        for crf in self.settings.crfs:
            recipe = recipe_for(clip, crf, self.settings.kernel)
            compressed = compress(clip, digest, recipe, self.settings.frames, len(truth))
            self.outcome.inputs.append(
                {"clip": clip.name, "crf": crf, "key": compressed.key, "sha256": compressed.sha256, "truth": digest}
            )
            wanted = self._wanted(len(truth))
            job = Job(clip.name, crf, compressed.frames, wanted, clip.frames, compressed.quantiser)
            if self.workspace.kept:
                pictures.keep_input(self.workspace.pictures, job, truth)
            units += [unit for method in self.settings.methods if (unit := self._unit(method, job, compressed, truth))]
        if self.settings.save_frames:
            folder = self.workspace.folder / "frames" / pictures.TRUTH / clip.name
            export_png(folder, truth, range(len(truth)), self._wanted(len(truth)))
        if not units:
            self._advance(len(truth))
            return []
        raw = RawVideo.write(self.workspace.raw(Unit(pictures.TRUTH, clip.name, 0)), truth, range(len(truth)))
        future = scorer.submit(score, raw, [video for _, _, video, _ in units], self._plan(len(truth)))
        return [_Pending(clip, raw, units, future)]

    def _wanted(self, count: int) -> tuple[int, ...]:
        return tuple(range(0, count, self.settings.every))

    def _plan(self, count: int) -> Plan:
        wanted = self._wanted(count)
        chosen = (wanted[len(wanted) // 2],) if self.settings.quick else None
        return Plan(self.settings.names, self.settings.every, chosen, self.settings.score_device)

    def _unit(self, method: Method, job: Job, compressed: Compressed, truth: list[np.ndarray]):
        """A unit that must be scored, or None when its scores are there already."""
        unit = Unit(method.name, job.clip, job.crf)
        if method.name not in self.loaded:
            self._child(method)  # settings are complete once its weights are read
            self.loaded.add(method.name)
        plan = self._plan(len(truth))
        fingerprint = {
            "settings": method.settings,
            "input": compressed.key,
            "metrics": sorted(plan.names),
            "every": plan.every,
            "vgg_frames": plan.vgg_frames,
        }
        finished = self.workspace.load_unit(unit, fingerprint)
        if finished is not None:
            self.outcome.results += finished["entries"]
            self.outcome.reused += 1
            self._advance(len(truth))
            return None
        kept = self.workspace.load_frames(unit, fingerprint)
        if kept is not None:
            self._advance(len(truth))
            return unit, fingerprint, *kept
        return unit, fingerprint, *self._restore(method, unit, job, fingerprint, len(truth))

    def _child(self, method: Method) -> Child:
        """The method's process, its weights read; not more than PROCESSES are kept."""
        child = self.children.pop(method.name, None)
        if child is None:
            while len(self.children) >= PROCESSES:
                self.children.pop(next(iter(self.children))).close()
            child = Child(f"method {method.name}", self._advance)
            self.children[method.name] = child
            method.settings.update(child.call(load_method, method))
        self.children[method.name] = child
        return child

    def _restore(
        self, method: Method, unit: Unit, job: Job, fingerprint: dict[str, Any], count: int
    ) -> tuple[RawVideo, dict[str, Any]]:
        before = self.done
        restored = self._child(method).call(restore, job, self.workspace.raw(unit))
        self._advance(count - (self.done - before))
        for line in restored.notices:
            self.notice(f"{method.name}, clip {job.clip}: {line}")
        speed = {"device": method.device, "dtype": method.dtype}
        if method.timed:
            speed |= {"seconds": restored.seconds, "frames": restored.count, "peak_bytes": restored.peak_bytes}
        video = restored.video
        if self.workspace.kept:
            pictures.keep(self.workspace.pictures / unit.stem, video.pixels(), video.frames, job.wanted)
        if self.settings.save_frames:
            export_png(self.workspace.folder / "frames" / unit.stem, video.pixels(), video.frames, job.wanted)
        self.workspace.note_frames(unit, fingerprint, video, speed)
        return video, speed

    def _collect(self, pending: _Pending, scorer: Child) -> None:
        """Waits for a clip's scores and stores them."""
        own, *scores = scorer.result(pending.future)
        for (unit, fingerprint, video, speed), found in zip(pending.units, scores, strict=True):
            entries = [_entry(unit.method, pending.clip, unit.crf, video, found, speed)]
            entries.append(_entry(pictures.TRUTH, pending.clip, unit.crf, pending.truth, own, {}))
            self.workspace.save_unit(unit, fingerprint, {"entries": entries})
            self.outcome.results += entries
            self.workspace.drop_frames(unit)
        self.workspace.drop_frames(Unit(pictures.TRUTH, pending.clip.name, 0))


def _entry(method: str, clip: Clip, crf: int, video: RawVideo, scores: Scores, speed: dict[str, Any]) -> dict[str, Any]:
    """One unit's results as they stand in report.json."""
    frames = {
        name: [[index, value if np.isfinite(value) else None] for index, value in values]
        for name, values in scores.frames.items()
    }
    return {
        "method": method,
        "clip": clip.name,
        "crf": crf,
        "width": video.width,
        "height": video.height,
        "frames": len(video.frames),
        "metrics": scores.means(),
        "metric_frames": {name: len(values) for name, values in frames.items()},
        "per_frame": frames,
        "failed": scores.failed,
        "speed": speed,
    }


def quick_look(frames: int | None, every: int, explicit: bool) -> bool:
    """Whether the default metrics are thinned out: a handful of frames was asked for, and no metric by name."""
    return frames is not None and frames <= QUICK and every == 1 and not explicit
