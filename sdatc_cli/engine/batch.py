"""Which inputs a command line means, and where the output of each goes. Looks at names and folders, opens no file."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdatc_cli.errors import OutputError, UsageError
from sdatc_cli.media.container import show
from sdatc_cli.media.encoders import CONTAINERS, holds
from sdatc_cli.media.images import is_image, is_still
from sdatc_cli.media.target import check_target

VIDEO_SUFFIXES = frozenset(CONTAINERS) | {
    *(".3gp", ".asf", ".divx", ".dv", ".flv", ".gif", ".m1v", ".m2v", ".mpeg", ".mpg", ".mxf", ".ogm", ".ogv", ".rm"),
    *(".rmvb", ".vob", ".wmv", ".y4m"),
}
PREVIEW_SECONDS = 2.0
NAMED = 5  # of the files that are passed over


@dataclass(frozen=True)
class Task:
    """One output to make. `start` and `duration` are seconds; `there` when it exists and is to be left alone.

    `folder` when it is one of frames, whatever its name ends in.
    """

    source: Path
    out: Path
    start: float | None = None
    duration: float | None = None
    there: bool = False
    folder: bool = False


def find_inputs(
    words: Sequence[Path], out: Path | None, tell: Callable[[str], None] = lambda line: None
) -> tuple[list[Path], bool]:
    """(inputs, each once; whether they are a batch, whose outputs go into a folder) for the arguments of a command.

    An argument that is no file's name is taken as a pattern; a folder is one input if it is a sequence of frames, else
    all videos and images in it, or the folders of frames where there are none; `tell` is given a line that names what
    else is in it. A single input that was found so is no batch when `out` is the name of a file. What does not exist or
    cannot be read stays in the list.
    """
    named = [path for word in words for path in _matches(word)]
    found = [path for folder in named for path in _members(folder, out, tell)]
    inputs: dict[str, Path] = {}
    for path in found:
        inputs.setdefault(os.path.abspath(path), path)
    searched = found != list(words)
    return list(inputs.values()), len(inputs) > 1 or (searched and not (out is not None and _names_a_file(out)))


def _matches(word: Path) -> list[Path]:
    """What an argument names: itself, or the files that match it as a pattern when it is no file's own name."""
    if os.path.lexists(word) or not glob.has_magic(str(word)):
        return [word]
    return _in_order(map(Path, glob.glob(str(word)))) or [word]


def _members(path: Path, out: Path | None, tell: Callable[[str], None]) -> list[Path]:
    """The inputs that an argument stands for: itself, unless it is a folder of several."""
    if not os.path.isdir(path):
        return [path]
    try:
        entries = _in_order(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError:
        return [path]
    files = [entry for entry in entries if os.path.isfile(entry) or not os.path.exists(entry)]  # or links to nothing
    videos = [f for f in files if f.suffix.lower() in VIDEO_SUFFIXES]
    images = [f for f in files if is_image(f)]
    if not videos and images and (len(_patterns(images)) < 2 or (out is not None and _names_a_file(out))):
        return [path]
    inputs = _in_order(videos + images) or [entry for entry in entries if _holds_images(entry)]
    if not inputs:
        return [path]
    others = [show(Path(entry.name)) for entry in entries if entry not in inputs]
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        tell(f"{show(path)}: passed over {', '.join(others[:NAMED])}{more}: no videos or images by their names")
    return inputs


def _holds_images(path: Path) -> bool:
    """Whether it is a folder of frames."""
    try:
        return os.path.isdir(path) and any(is_image(entry) for entry in path.iterdir())
    except OSError:
        return False


def _patterns(images: Iterable[Path]) -> set[str]:
    """The names of images without their numbers: frames of a sequence share one."""
    return {re.sub(r"[0-9]+", "#", image.stem) for image in images}


def _in_order(paths: Iterable[Path]) -> list[Path]:
    """By name, numbers by their value."""

    def key(path: Path) -> tuple[list[tuple[int, str]], str]:
        parts = re.split(r"([0-9]+)", str(path))
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], str(path)

    return sorted(paths, key=key)


def _names_a_file(out: Path) -> bool:
    return (out.suffix.lower() in CONTAINERS or is_image(out)) and not os.path.isdir(out)


def plan_batch(inputs: Sequence[Path], folder: Path, codec: str, overwrite: bool, skip_existing: bool) -> list[Task]:
    """One task an input, each with its output in `folder`, which need not exist yet.

    An output keeps the input's name, and its container where that can be written and holds what `codec` makes, else
    Matroska; images become PNG, folders of frames folders of PNG. Raises UsageError when two inputs have one output,
    OutputError when an output is or holds an input, or exists while it may be neither overwritten nor skipped.
    """
    if _names_a_file(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
        count = "several inputs" if len(inputs) > 1 else "a pattern or a folder"
        raise UsageError(f"{count}: -o must be a folder, and {show(folder)} is a file or the name of one")
    tasks = [Task(source, folder / _output_name(source, codec), folder=os.path.isdir(source)) for source in inputs]
    taken: dict[str, Path] = {}
    for task in tasks:
        other = taken.setdefault(os.path.normcase(task.out), task.source)
        if other is not task.source:
            raise UsageError(
                f"{show(other)} and {show(task.source)} would both be written to {show(task.out)}; "
                "rename one or restore them one by one"
            )
    real = [Path(os.path.realpath(source)) for source in inputs]
    held = {str(path) for source in real for path in (source, *source.parents)}  # inputs, and what they lie in
    for task in tasks:
        if os.path.realpath(task.out) in held:
            raise OutputError(
                f"{show(task.out)}: the output of {show(task.source)} is an input or holds one; choose another folder"
            )
    there = [task.out for task in tasks if os.path.lexists(task.out)]
    if there and not (overwrite or skip_existing):
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise OutputError(f"{show(there[0])}{more}: exists already; -y overwrites, --skip-existing leaves it as it is")
    return [replace(task, there=skip_existing and task.out in there) for task in tasks]


def _output_name(source: Path, codec: str) -> str:
    """The name of an input's output."""
    if os.path.isdir(source):
        return source.resolve().name
    if is_still(source):
        return source.stem + ".png"
    container = CONTAINERS.get(source.suffix.lower())
    return source.name if container is not None and holds(container, codec) else source.stem + ".mkv"


def plan_previews(
    source: Path, out: Path, moments: Iterable[float], duration: float | None, overwrite: bool
) -> list[Task]:
    """One task a moment (seconds): `duration` from there on, into OUT-stem.preview-<seconds>.<ending> beside `out`.

    Raises UsageError when `out` is not the name of a video, OutputError when an output exists and may not be replaced.
    """
    if out.suffix.lower() not in CONTAINERS or os.path.isdir(out):
        raise UsageError(f"--preview writes videos: -o {show(out)} must be the name of one, for example out.mkv")
    length = PREVIEW_SECONDS if duration is None else duration
    named = {out.with_name(f"{out.stem}.preview-{in_seconds(moment)}{out.suffix}"): moment for moment in moments}
    for path in named:
        check_target(path, source, overwrite)
    return [Task(source, path, moment, length) for path, moment in named.items()]


def in_seconds(moment: float) -> str:
    """A time for a file's name: "90" or "1.5"."""
    return f"{moment:.3f}".rstrip("0").rstrip(".")
