"""Opening an encoder before the work begins: is its hardware here, and does it take these settings?"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
import av.logging
from av.codec.codec import Codec
from av.codec.context import CodecContext

from sdatc_cli.errors import DeviceError, UsageError
from sdatc_cli.media.container import one_line
from sdatc_cli.media.encoders import (
    EncodeOptions,
    container_format,
    find_codec,
    hardware,
    options_of,
    pixel_formats,
    plan_encoder,
    software_for,
)
from sdatc_cli.media.info import MediaInfo

EDGE = 256  # pixels of the picture an encoder is tried with; NVENC takes none below 145
# How FFmpeg words that it passes over a setting inside a list such as x264-params, and opens all the same.
_DROPPED = re.compile(r"error parsing|unknown option|invalid value|error setting", re.IGNORECASE)
_SPEAKER = re.compile(r"^(\[[^\]]*@ 0x[0-9a-f]+\] ?)+|^\S*\[error\]: ?")


def check_encoder(options: EncodeOptions) -> None:
    """Whether the encoder exists and works here, and knows the pixel format and the names of the options.

    Needs no input. Raises UsageError, or DeviceError when hardware that the encoder needs is missing.
    """
    codec = find_codec(options.codec)
    if hardware(codec.name):
        reason = trouble(codec)
        if reason is not None:
            raise DeviceError(
                f"--codec {codec.name} cannot be used here ({reason}); use --codec {software_for(codec.name)}"
            )
    pixel_formats(codec, options.pix_fmt)
    options_of(codec, options)


def check_settings(options: EncodeOptions, out: Path, info: MediaInfo, width: int, height: int) -> None:
    """Whether the encoder takes the values of the options for this output of (width, height); opens it once.

    Raises UsageError in the encoder's words. Not while other threads write to stderr.
    """
    plan = plan_encoder(options, container_format(out), info, width, height)
    said, error = _open(plan.codec, plan.pix_fmt, width, height, plan.options)
    dropped = [line for line in said if _DROPPED.search(line)]
    if error is None and not dropped:
        return
    wishes = ", ".join(f"{key}={value}" for key, value in options.options) or f"{plan.pix_fmt} of {width}x{height}"
    words = "; ".join(dict.fromkeys(dropped if error is None else said[-2:])) or error
    raise UsageError(f"{plan.codec} refuses {wishes}: {words}")


def trouble(codec: Codec) -> str | None:
    """Why an encoder that is built in cannot be opened on this machine; None when it can."""
    names = [f.name for f in codec.video_formats or ()]
    chosen = next((name for name in ("yuv420p", "nv12") if name in names), names[0] if names else "yuv420p")
    said, error = _open(codec.name, chosen, EDGE, EDGE, {})
    return None if error is None else (said[-1] if said else error)


def _open(codec: str, pix_fmt: str, width: int, height: int, options: dict[str, str]) -> tuple[list[str], str | None]:
    """Opens an encoder and lets it go: what the libraries said, line by line, and the error as one line or None."""
    context: Any = CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.options = dict(options)
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    error = None
    with _overheard() as said:
        try:
            context.open(strict=False)
        except (av.error.FFmpegError, ValueError) as failure:
            error = one_line(failure)
        del context
    return said, error


@contextlib.contextmanager
def _overheard() -> Iterator[list[str]]:
    """Collects what FFmpeg and encoder libraries write to stderr meanwhile; the list is filled at the end."""
    said: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # this process was started without a stderr
        yield said
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        av.logging.set_libav_level(av.logging.WARNING)
        av.logging.restore_default_callback()
        try:
            yield said
        finally:
            av.logging.set_level(None)
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
            said += [clean for line in lines if (clean := _SPEAKER.sub("", line).strip().rstrip("."))]
