"""From a run's outcome to report.json: means over clips, speeds, published rows, and everything needed to repeat it."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

from sdatc_cli import __version__
from sdatc_cli.media.ffmpeg import ffmpeg_version

from . import published
from .methods import Method
from .metrics import KNOWN, OF_TRUTH
from .pictures import TRUTH
from .runner import Outcome, Settings

PACKAGES = ("torch", "diffusers", "numpy", "pillow", "opencv-python-headless", "scikit-image", "av", "ncnn", "pyiqa")
SPEEDS = ("seconds_per_frame", "fps", "peak_bytes")


def build(
    settings: Settings, outcome: Outcome, missing: dict[str, str], command: Sequence[str], seconds: float
) -> dict[str, Any]:
    """The whole report. `missing`: metrics that could not run here and how to install them."""
    results = _unique(outcome.results)
    failed = {name: reason for entry in results for name, reason in entry["failed"].items()} | outcome.failed
    return {
        "sdatc": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "seconds": round(seconds, 1),
        "protocol": protocol(settings),
        "environment": environment(),
        "methods": {method.name: describe(method) for method in settings.methods},
        "inputs": sorted(outcome.inputs, key=lambda item: (item["clip"], item["crf"])),
        "metrics": {name: vars(KNOWN[name]) for name in settings.names},
        "not_run": missing,
        "failed": failed,
        "summary": summary(settings, results, outcome.sets),
        "published": [
            {**row, "source": published.source()}
            for crf in settings.crfs
            for row in published.rows(settings.dataset.key, crf)
        ],
        "results": results,
    }


def protocol(settings: Settings) -> dict[str, Any]:
    """How the test data were made and which frames were scored."""
    return {
        "dataset": settings.dataset.key,
        "title": settings.dataset.title,
        "clips": [clip.name for clip in settings.dataset.clips],
        "crf": list(settings.crfs),
        "kernel": settings.kernel,
        "scale": 4,
        "codec": "libx264",
        "preset": "medium",
        "frames": settings.frames,
        "every": settings.every,
        "vgg_on_one_frame": settings.quick,
        "mean": "over the scored frames of a clip, then over the clips",
        "border": "not cropped",
    }


def environment() -> dict[str, Any]:
    """Versions and the machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "ffmpeg": ffmpeg_version(),
        "packages": versions,
    }


def processor() -> str:
    """The CPU's name, as well as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe(method: Method) -> dict[str, Any]:
    """A method's settings, device and number format."""
    return {"settings": method.settings, "device": method.device, "dtype": method.dtype, "timed": method.timed}


def summary(settings: Settings, results: list[dict[str, Any]], sets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each CRF and method, and one for the ground truth: {"method", "crf", "metrics", "speed"}."""
    rows = []
    for crf in settings.crfs:
        for name in (*(method.name for method in settings.methods), TRUTH):
            entries = [entry for entry in results if entry["method"] == name and entry["crf"] == crf]
            if not entries:
                continue
            metrics = {metric: mean for metric in settings.names if (mean := _mean(entries, metric)) is not None}
            counts = {metric: sum(entry["metric_frames"].get(metric, 0) for entry in entries) for metric in metrics}
            for found in (found for found in sets if found["method"] == name and found["crf"] == crf):
                metrics |= found["metrics"]
            if name == TRUTH:
                metrics = {metric: value for metric, value in metrics.items() if metric in OF_TRUTH}
            row = {"method": name, "crf": crf, "metrics": metrics, "metric_frames": counts}
            rows.append({**row, "speed": _speed(entries)})
    return rows


def _mean(entries: list[dict[str, Any]], metric: str) -> float | None:
    """The mean over the clips of their own means, clips without a value left out."""
    values = [entry["metrics"][metric] for entry in entries if metric in entry["metrics"]]
    return sum(values) / len(values) if values else None


def _speed(entries: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = [entry["speed"] for entry in entries if entry["speed"].get("frames")]
    if not speeds:
        return {}
    seconds = sum(speed["seconds"] for speed in speeds)
    frames = sum(speed["frames"] for speed in speeds)
    peaks = [speed["peak_bytes"] for speed in speeds if speed["peak_bytes"]]
    return {
        "seconds_per_frame": seconds / frames,
        "fps": frames / seconds if seconds else None,
        "peak_bytes": max(peaks, default=None),
        "device": speeds[0]["device"],
        "dtype": speeds[0]["dtype"],
    }


def _unique(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each method, clip and CRF, in a fixed order."""
    kept = {(entry["crf"], entry["clip"], entry["method"]): entry for entry in results}
    return [kept[key] for key in sorted(kept)]
