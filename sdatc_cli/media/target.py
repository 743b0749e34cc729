"""Outputs appear under their final name whole or not at all."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sdatc_cli.errors import OutputError
from sdatc_cli.media.container import one_line, show

_LONGEST_NAME = 255  # bytes
TAKEN = "the name is taken now by something that was not there before; move it away or give -y"


def check_target(out: Path, source: Path, overwrite: bool, frames: Sequence[Path] = ()) -> None:
    """Refuse an output that is or holds the input, lies in a missing folder, or exists while `overwrite` is off.

    `frames` are the files of an input that is a folder. Raises OutputError.
    """
    try:
        if out.exists() and source.exists() and out.samefile(source):
            raise OutputError(f"{show(out)}: the output is the input; choose another name")
        if out.is_dir() and any(lies_in(path, out) for path in (source, *frames)):
            raise OutputError(f"{show(out)}: the output folder holds the input; choose another name")
        folder = Path(os.path.realpath(out)).parent if out.is_symlink() else out.parent
        if not folder.is_dir():
            raise OutputError(f"{show(folder)}: no such folder for the output")
        if os.path.lexists(out) and not overwrite:
            raise OutputError(f"{show(out)}: exists already; -y overwrites it")
    except (OSError, ValueError) as error:
        raise OutputError(f"{show(out)}: cannot be written ({one_line(error)})") from error


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a file, or the link that it is named by, lies in a folder or below it. OSError."""
    real = Path(os.path.realpath(folder))
    return any(real in Path(os.path.realpath(place)).parents for place in (path, path.parent / "_"))


class NameTakenError(OutputError):
    """Something has appeared under the output's name while the output was made, and may not be overwritten."""


class TargetFile:
    """A temporary file beside `out` that `commit` moves to its name after an fsync and `discard` removes.

    Where `out` is a link, all this happens where it leads.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        """Raises OutputError if the folder cannot be written or `out` is a folder."""
        suffix = out.suffix[:16]  # what is written is what the name that was given says
        try:
            if out.is_dir():
                raise OutputError(f"{show(out)}: is a folder")
            out = Path(os.path.realpath(out)) if out.is_symlink() else out
            handle, name = tempfile.mkstemp(prefix=".sdatc-", suffix=suffix, dir=out.absolute().parent)
            os.close(handle)
        except OSError as error:
            raise OutputError(f"{show(out)}: cannot be written ({one_line(error)})") from error
        self.out, self._overwrite, self.path = out, overwrite, Path(name)

    def commit(self) -> None:
        """Make the file durable and give it its name. Raises OutputError, NameTakenError where it cannot have it."""
        try:
            share(self.path, 0o666)
            sync(self.path)
            if self._overwrite:
                os.replace(self.path, self.out)
            else:
                rename_new(self.path, self.out)
            sync(self.out.absolute().parent)
        except FileExistsError as error:
            self.discard()
            raise NameTakenError(f"{show(self.out)}: {TAKEN}") from error
        except OSError as error:
            self.discard()
            raise OutputError(f"{show(self.out)}: cannot be written ({one_line(error)})") from error

    def discard(self) -> None:
        """Remove the temporary file."""
        self.path.unlink(missing_ok=True)


class TargetFolder:
    """A temporary folder beside `out`; `commit` gives it that name in place of an earlier folder of frames.

    The earlier folder is whole until then: it is set aside under a hidden name, put back if the new one cannot take its
    place (by the next run if this one is killed between the two), and deleted only afterwards.
    """

    def __init__(self, out: Path, endings: frozenset[str], overwrite: bool) -> None:
        """Raises OutputError if `out` is a file or a folder that holds anything but numbered frames, or exists while
        `overwrite` is off."""
        self.out = out = out.resolve() if out.is_dir() else out
        self._endings, self._overwrite = endings, overwrite
        self._earlier = out.with_name(hidden_name(out.name, ".earlier"))
        try:
            if not os.path.lexists(out) and self._earlier.is_dir():
                os.rename(self._earlier, out)
            if not overwrite and os.path.lexists(out):
                raise OutputError(f"{show(out)}: exists already; -y overwrites it")
            self._check()
            self.path = Path(tempfile.mkdtemp(prefix=".sdatc-", dir=out.absolute().parent))
        except OSError as error:
            raise OutputError(f"{show(out)}: cannot be written ({one_line(error)})") from error

    def _check(self) -> None:
        """OutputError if what lies under the name is anything but a folder of numbered frames. OSError."""
        if self.out.is_dir():
            alien = next(
                (p for p in self.out.iterdir() if p.suffix not in self._endings or not p.stem.isdecimal()), None
            )
            if alien is not None:
                raise OutputError(f"{show(self.out)}: not a folder of numbered frames ({show(alien)}); left alone")
        elif os.path.lexists(self.out):
            raise OutputError(f"{show(self.out)}: is not a folder; give the output an ending for a video or image")

    def commit(self) -> None:
        """Give the folder its name; frames of an earlier run give way.

        Raises OutputError; the new folder stays under its hidden name where something has come in its way meanwhile.
        """
        try:
            share(self.path, 0o777)
            if not self._overwrite and os.path.lexists(self.out):
                raise OutputError(f"{show(self.out)}: {TAKEN}")
            self._check()
            sync(self.path)
            if self._overwrite and self.out.is_dir():
                shutil.rmtree(self._earlier, ignore_errors=True)
                os.rename(self.out, self._earlier)
            os.rename(self.path, self.out)
            sync(self.out.absolute().parent)
        except OutputError as error:
            raise OutputError(f"{error}; the finished frames are in {show(self.path)}") from error
        except OSError as error:
            with contextlib.suppress(OSError):
                if self._earlier.is_dir() and not os.path.lexists(self.out):
                    os.rename(self._earlier, self.out)
            self.discard()
            raise OutputError(f"{show(self.out)}: cannot be written ({one_line(error)})") from error
        shutil.rmtree(self._earlier, ignore_errors=True)

    def discard(self) -> None:
        """Remove the temporary folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def hidden_name(name: str, ending: str) -> str:
    """`.NAME` with an ending; where that is too long, the name's beginning and a hash of all of it."""
    whole = f".{name}{ending}"
    if len(os.fsencode(whole)) <= _LONGEST_NAME:
        return whole
    content = os.fsencode(name)
    return f".{content[:200].decode(errors='ignore')}.{hashlib.sha256(content).hexdigest()[:8]}{ending}"


def rename_new(path: Path, out: Path) -> None:
    """Give a file a name that nothing has yet. FileExistsError where something has; OSError."""
    try:
        os.link(path, out)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise
    except OSError:  # not every file system has links
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(path, out)
    else:
        path.unlink()


def share(path: Path, mode: int) -> None:
    """Give a temporary file or folder, made private, the permissions `mode` less the umask."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, mode & ~umask)


def sync(path: Path) -> None:
    """fsync a file or, where the system can, a folder. OSError for a file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders on Windows
        return
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some network's file systems refuse it for folders
            raise
    finally:
        os.close(handle)
