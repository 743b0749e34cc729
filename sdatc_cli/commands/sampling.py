"""`sdatc upscale --sample`: before/after stills in place of a video."""

import os
from contextlib import suppress
from pathlib import Path

from sdatc_cli import output
from sdatc_cli.commands.request import Request
from sdatc_cli.commands.workshop import Workshop
from sdatc_cli.engine.batch import in_seconds
from sdatc_cli.errors import InputError, Interrupted, OutputError, UsageError
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.images import write_image
from sdatc_cli.media.probe import check_size
from sdatc_cli.media.target import TargetFile, check_target


def write_samples(request: Request, source: Path, folder: Path) -> None:
    """Writes one PNG a moment into `folder`: bicubic enlargement | restored. Raises the classes of errors.py."""
    info = request.look(source)
    check_size(info)
    if info.kind == "image" and request.previews:
        raise UsageError(f"--preview: {show(source)} is a still image, which has no times")

    from sdatc_cli.engine.stills import before_after, spread  # needs torch

    moments = request.previews or spread(info, request.start, request.duration)
    stem = source.resolve().name if source.is_dir() else source.stem
    targets = {folder / f"{stem}.sample-{in_seconds(moment)}.png": moment for moment in moments}
    written: list[dict[str, object]] = []
    made = not os.path.lexists(folder)
    try:
        _prepare(folder, list(targets), source, request.overwrite)
        workshop, terminal = Workshop(request), output.Terminal(request.quiet)
        job = workshop.job(info, folder, request.start, request.duration, terminal)
        with terminal.showing("sampling", "stills"):
            stills = before_after(job, list(targets.values()), lambda: workshop.restorer, terminal)
            for (path, moment), still in zip(targets.items(), stills, strict=True):
                if still is None:
                    _complain(source, moment, terminal, fatal=bool(request.previews))
                    continue
                target = TargetFile(path, request.overwrite)
                try:
                    write_image(target.path, still, None, info.color, info.tags, path)
                    target.commit()
                finally:
                    target.discard()
                written.append({"seconds": moment, "output": str(path)})
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {len(written)} of {len(targets)} stills are in {folder}") from None
    finally:
        if made and not written:
            with suppress(OSError):
                folder.rmdir()
    if not written:
        raise InputError(f"{show(source)}: no frames between the start and the end that were asked for")
    terminal.say(f"{folder}: {len(written)} stills, enlarged | restored")
    if request.out is not None:
        terminal.say(f"{request.out}: not written, for --sample makes no video")
    if request.as_json:
        facts = {"input": str(source), "samples": written, "model": request.model, **workshop.how}
        output.print_json(facts | {"options": workshop.options(job), "notices": terminal.notices})


def _complain(source: Path, moment: float, terminal: output.Terminal, fatal: bool) -> None:
    """Says that there is no frame at a moment: InputError where it was asked for by name, else a notice."""
    line = f"{show(source)}: no frame at {moment:g} seconds or later"
    if fatal:
        raise InputError(line)
    terminal.notice(line)


def _prepare(folder: Path, paths: list[Path], source: Path, overwrite: bool) -> None:
    """Makes the folder. OutputError when that fails or a still is there already and may not be replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{show(folder)}: cannot be made ({one_line(error)})") from error
    for path in paths:
        check_target(path, source, overwrite)
