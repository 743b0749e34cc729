"""What is already done of a job, on disk, so that the same command goes on where it was stopped.

A work folder, `.NAME.sdatc` beside the output (a long name is cut), holds `journal.jsonl`, the finished stretches and a
lock. The first line tells what the output depends on and where it lies, each other one a stretch. The file of a stretch
is brought to the disk before its line is, so a line can be trusted; a torn last line is ignored.
"""

import bisect
import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from sdatc_cli.errors import OutputError
from sdatc_cli.media.container import one_line, protocol_of, show
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.target import hidden_name, sync

try:
    import fcntl
except ImportError:  # Windows: two runs on one output are not told apart there
    fcntl = None

VERSION = 1
JOURNAL = "journal.jsonl"
LOCK = "lock"
EDGE = 1 << 20  # bytes hashed at either end of an input


@dataclass(frozen=True)
class Segment:
    """A finished stretch of the output: frames [first, stop) of the input, and what the next stretch begins with.

    `last_pts` and `repaired` are the output's clock after it, counted from the beginning of the output.
    """

    name: str
    first: int
    stop: int
    frames: int
    size: int  # bytes
    sha256: str
    delay: int  # pictures, see packets.reorder_delay
    last_pts: int
    repaired: int
    tile: int | None


class Journal:
    """The work folder of one output, locked while it is open."""

    def __init__(self, folder: Path, out: Path) -> None:
        """Opens or creates the folder. OutputError when it cannot be, or when another run holds it."""
        self.folder, self.out = folder, out
        self.segments: list[Segment] = []  # by `first`; there may be gaps
        self._file = folder / JOURNAL
        self._lock: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
            if not try_lock(self._lock):
                self.close()
                raise OutputError(f"{show(out)}: another sdatc is working on it; wait for it or stop it")
        except OSError as error:
            self.close()
            raise OutputError(f"{show(folder)}: cannot be used for unfinished work ({one_line(error)})") from error

    def begin(self, identity: dict[str, Any], resume: bool) -> str | None:
        """Takes up earlier work when it has the same identity and is whole, else clears it away.

        Returns one line for a person, None when there was no earlier work. Raises OutputError.
        """
        try:
            old, segments = read_journal(self.folder)
            if old is None:
                self._start(identity)
                return None
            why = "--no-resume was given" if not resume else _difference(old, identity)
            if why is not None:
                self._start(identity)
                return f"earlier unfinished work is thrown away: {why}"
            self.segments = _whole(self.folder, segments)
            self._rewrite(identity)
        except OSError as error:
            raise OutputError(f"{show(self.folder)}: cannot be written ({one_line(error)})") from error
        frames = sum(segment.frames for segment in self.segments)
        return f"going on after {frames} finished frames of an earlier run" if frames else None

    def append(self, segment: Segment) -> None:
        """Records a stretch whose file is on the disk. OSError."""
        bisect.insort(self.segments, segment, key=lambda other: other.first)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(segment)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Deletes the work folder and lets go of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def abandon(self) -> None:
        """Lets go of the work folder, and deletes it when no stretch is in it."""
        if self.segments:
            self.close()
        else:
            self.remove()

    def kept(self) -> str:
        """The end of a failure's line: what is kept. Empty when nothing is."""
        frames = sum(segment.frames for segment in self.segments)
        return f"; {frames} finished frames are kept, the same command goes on from there" if frames else ""

    def close(self) -> None:
        """Lets go of the work folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start(self, identity: dict[str, Any]) -> None:
        for path in self.folder.iterdir():
            if path.name != LOCK:
                path.unlink()
        self.segments = []
        self._rewrite(identity)

    def _rewrite(self, identity: dict[str, Any]) -> None:
        """Writes the journal anew, and removes files that no line names."""
        kept = {self._file.name, LOCK, *(segment.name for segment in self.segments)}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()
        fresh = self._file.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            for entry in (identity | {"output": str(self.out.absolute())}, *map(asdict, self.segments)):
                file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._file)
        sync(self.folder)


def read_journal(folder: Path) -> tuple[dict[str, Any] | None, list[Segment]]:
    """(identity or None, finished stretches) as the journal of a work folder states them. OSError."""
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
        identity = dict(json.loads(lines[0]))
    except (FileNotFoundError, IndexError, ValueError, TypeError):
        return None, []
    segments = []
    for line in lines[1:]:
        try:
            segments.append(_segment(json.loads(line)))
        except (ValueError, TypeError):  # torn by a crash; nothing behind it counts
            break
    return identity, segments


def _segment(content: dict[str, Any]) -> Segment:
    """A line of a journal. TypeError when it does not fit."""
    segment = Segment(**content)
    for entry in fields(Segment):
        if not isinstance(getattr(segment, entry.name), cast(type, entry.type)):
            raise TypeError(entry.name)
    return segment


@dataclass(frozen=True)
class Unfinished:
    """Work that a run left behind, or is doing now. `size` is bytes on the disk."""

    folder: Path
    output: Path
    frames: int
    size: int
    running: bool

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    def delete(self) -> bool:
        """Removes it; whether it is gone. It stays where a run has taken it up meanwhile."""
        try:
            Journal(self.folder, self.output).remove()
        except OutputError:
            return False
        return not self.folder.exists()


def unfinished(parent: Path) -> list[Unfinished]:
    """The unfinished work whose folders lie in `parent`: folders, not links to any, with a journal that can be read."""
    found = []
    for folder in sorted(parent.glob(".*.sdatc")):
        output = parent / folder.name.removeprefix(".").removesuffix(".sdatc")
        try:
            identity, segments = read_journal(folder)
        except OSError:
            continue
        if identity is None or folder.is_symlink():
            continue
        running = _is_locked(folder / LOCK)
        noted = Path(str(identity.get("output", output)))
        with contextlib.suppress(ValueError):  # of what is no name
            if noted.name != output.name and work_folder(noted, parent) == folder:  # it lies elsewhere than the output
                output = noted
        found.append(
            Unfinished(folder, output, sum(s.frames for s in segments), sum(s.size for s in segments), running)
        )
    return found


def work_folder(out: Path, parent: Path | None = None) -> Path:
    """Where the unfinished work for an output lies: beside it, or in `parent`, which other outputs may share."""
    home = out.absolute().parent
    if parent is None or os.path.realpath(parent) == os.path.realpath(home):
        return (parent or home) / hidden_name(out.name, ".sdatc")
    place = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:8]
    return parent / hidden_name(out.name, f".{place}.sdatc")


def try_lock(handle: int) -> bool:
    """Takes the lock of an open file without waiting; it ends with the process. False when another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    """Whether a run has the lock, or may have one that cannot be read. Makes no file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return path.exists()
    try:
        return not try_lock(handle)
    except OSError:  # a network's file system may lock only what can be written
        return True
    finally:
        os.close(handle)


def input_identity(info: MediaInfo) -> dict[str, Any]:
    """Tells one state of an input from another: size, times of change, and of a file the content of both ends. OSError.

    Of what is no file, only the name is known.
    """
    if protocol_of(info.path) is not None:
        return {"name": str(info.path)}
    digest = hashlib.sha256()
    size, changed = 0, list[int]()
    for path in info.frames or (info.path,):
        state = path.stat()
        size += state.st_size
        changed.append(state.st_mtime_ns)
        digest.update(f"{path.name}\0{state.st_size}\0".encode("utf-8", "surrogateescape"))
        if not info.frames:
            with path.open("rb") as file:
                digest.update(file.read(EDGE))
                file.seek(max(state.st_size - EDGE, 0))
                digest.update(file.read(EDGE))
    # Of every frame: one that takes the place of another is often of its size, and older than the newest.
    times = changed[0] if len(changed) == 1 else hashlib.sha256(repr(changed).encode()).hexdigest()
    return {"size": size, "mtime_ns": times, "sha256_of_ends": digest.hexdigest()}


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """What differs between two identities, for a person; None when they agree."""
    new = json.loads(json.dumps(new))
    if old.get("version") != new["version"]:
        return "it was made by another version"
    changed = [key for key in new if old.get(key) != new[key]]
    if "input" in changed:
        return "the input has changed"
    return f"other {', '.join(changed)}" if changed else None


def _whole(folder: Path, segments: list[Segment]) -> list[Segment]:
    """The segments whose files agree with their checksums, by `first`."""
    good: dict[int, Segment] = {}
    for segment in segments:
        with contextlib.suppress(OSError), (folder / segment.name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == segment.sha256:
                good[segment.first] = segment
    return [good[first] for first in sorted(good)]
