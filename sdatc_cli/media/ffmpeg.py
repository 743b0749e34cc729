"""The ffmpeg program: where it is, and running it fed with frames."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np

from sdatc_cli.errors import DeviceError, OutputError
from sdatc_cli.media.container import one_line


def ffmpeg_binary() -> str:
    """Path of an ffmpeg program: the one on PATH, else the one that comes with imageio-ffmpeg.

    Raises DeviceError if there is none.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise DeviceError("no ffmpeg program is installed; `pip install imageio-ffmpeg` brings one") from error


def ffmpeg_version() -> str:
    """The first line that `ffmpeg -version` prints."""
    done = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, errors="replace", check=False)
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def feed(command: Sequence[str], images: Iterable[np.ndarray]) -> int:
    """Run an ffmpeg command that reads raw frames from stdin; returns how many it took.

    Raises OutputError with ffmpeg's last line if it fails; whatever `images` raises ends the program.
    """
    count = 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log)
        assert process.stdin is not None
        try:
            for image in images:
                try:
                    process.stdin.write(np.ascontiguousarray(image).data)
                except BrokenPipeError:
                    break  # it ended early; its exit status tells
                count += 1
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait() != 0:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise OutputError(f"ffmpeg failed: {one_line(ValueError(lines[-1] if lines else 'no message'))}")
    return count
