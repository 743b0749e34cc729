"""From the words of `sdatc bench` to a finished report; shows nothing itself but progress."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sdatc_cli.errors import Interrupted, UsageError
from sdatc_cli.output import Terminal

from . import datasets, html, methods, metrics, report
from .inputs import recipe_for
from .runner import Run, Settings, quick_look
from .workspace import opened, write_json


@dataclass(frozen=True)
class Request:
    """What was asked for, as typed."""

    dataset: str
    data: Path | None
    crfs: tuple[int, ...]
    kernel: str
    methods: tuple[str, ...]
    candidates: tuple[str, ...]
    metrics: str | None
    frames: int | None
    every: int
    model: str
    device: str
    dtype: str
    out: Path | None
    save_frames: bool
    resume: bool
    overwrite: bool
    command: tuple[str, ...]


def run(request: Request, terminal: Terminal) -> dict[str, Any]:
    """Runs a benchmark and returns its report; with a report folder, report.json and report.html are written there."""
    began = time.monotonic()
    if request.out is not None:
        import_module("jinja2")  # the page needs it: a person hears so now, not when all is measured
    names = metrics.parse(request.metrics or "all")
    chosen = [methods.make(text, request.model, request.device, request.dtype) for text in request.methods]
    chosen += candidates(request.candidates)
    if not chosen:
        raise UsageError(f"no method named; known: {', '.join(methods.NAMES)}")
    dataset = datasets.find(request.dataset, request.data)
    for clip in dataset.clips[:1]:
        recipe_for(clip, request.crfs[0], request.kernel)  # an unknown kernel is told before anything is done
    ready, missing = metrics.split(names)
    for name, reason in missing.items():
        terminal.notice(f"{name} is not measured: {reason}")
    settings = Settings(
        dataset=dataset,
        methods=chosen,
        crfs=request.crfs,
        kernel=request.kernel,
        names=tuple(ready),
        frames=request.frames,
        every=request.every,
        quick=quick_look(request.frames, request.every, request.metrics is not None),
        save_frames=request.save_frames or "fid" in ready,
        score_device=score_device(request.device),
    )
    with opened(request.out, request.resume, request.overwrite) as workspace:
        job = Run(settings, workspace, terminal.progress, terminal.notice)
        try:
            with terminal.showing(f"bench {dataset.title}"):
                outcome = job()
        except KeyboardInterrupt as stop:
            hint = f"; go on with: --resume -o {request.out}" if request.out else ""
            raise Interrupted(f"interrupted{hint}") from stop
        if job.outcome.reused:
            terminal.notice(f"{job.outcome.reused} results were taken from {request.out}")
        told = report.build(settings, outcome, missing, request.command, time.monotonic() - began)
        if workspace.kept:
            write_json(workspace.folder / "report.json", told)
            html.write(told, workspace.pictures, workspace.folder / "report.html")
            workspace.finish()
            terminal.say(f"report: {workspace.folder / 'report.html'}")
    return told


def candidates(texts: Sequence[str]) -> list[methods.Candidate]:
    """Methods from "NAME=DIR" texts."""
    found = []
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UsageError(f"--candidate {text}: write NAME=DIR")
        found.append(methods.Candidate(name, Path(folder)))
    return found


def score_device(device: str) -> str:
    """Where the networks of the metrics run: on the first CUDA device if there is one and it is not ruled out."""
    if device != "auto" and not device.startswith("cuda"):
        return "cpu"
    import torch

    return (device if device != "auto" else "cuda") if torch.cuda.is_available() else "cpu"
