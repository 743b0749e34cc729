"""Opening untrusted input files with FFmpeg's libraries: local files only, no playlists, errors as one line."""

from pathlib import Path
from typing import Any

import av
import av.error
from av.container import Flags, InputContainer

from sdatc_cli.errors import InputError

MAX_PIXELS = 1 << 26  # 8192 x 8192; a header that claims more is taken for a lie

# Demuxers that open further files, read devices or networks, draw text, or read numbered files by pattern.
_REFUSED_FORMATS = {
    "alsa", "applehttp", "avisynth", "concat", "dash", "fbdev", "hls", "image2", "image2pipe", "imf", "kmsgrab",
    "lavfi", "oss", "pulse", "rtp", "rtsp", "sap", "sdp", "tedcaptions", "tty", "v4l2", "video4linux2", "vobsub",
    "x11grab", "xcbgrab",
}  # fmt: skip
_PLAYLIST_HEADS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]", b"[reference]", b"v=0\r\n", b"v=0\no=")
_PROTOCOL_PREFIXES = ("concat:", "concatf:", "crypto:", "data:", "ftp:", "hls:", "http:", "https:", "pipe:", "rtmp:",
                      "rtp:", "rtsp:", "srt:", "subfile:", "tcp:", "tls:", "udp:")  # fmt: skip


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, without FFmpeg's error number and the file name."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def show(path: Path) -> str:
    """A path as it may stand in a one-line message: control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def check_input(path: Path) -> None:
    """Refuse what is not a readable, non-empty local file or folder.

    Raises InputError.
    """
    if str(path).lower().startswith(_PROTOCOL_PREFIXES) and not path.exists():
        raise InputError(f"{show(path)}: only local files are read, not protocols; download the video first")
    try:
        if path.is_dir():
            return
        if not path.exists():
            raise InputError(f"{show(path)}: no such file")
        if not path.is_file():
            raise InputError(f"{show(path)}: not a regular file")
        if path.stat().st_size == 0:
            raise InputError(f"{show(path)}: the file is empty")
        with path.open("rb") as file:
            head = file.read(1024)
    except (OSError, ValueError) as error:
        raise InputError(f"{show(path)}: cannot be read ({one_line(error)})") from error
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_PLAYLIST_HEADS) or (text.startswith(b"<?xml") and b"<MPD" in text):
        raise InputError(f"{show(path)}: a playlist, not a video; give the video file itself")


def open_input(path: Path, **options: Any) -> InputContainer:
    """Open a local media file; the caller closes it.

    Raises InputError if FFmpeg cannot read it.
    """
    check_input(path)
    allowed = ",".join(sorted(name for name in av.formats_available if not _REFUSED_FORMATS & set(name.split(","))))
    try:
        container = av.open(
            f"file:{path.absolute()}",
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file", "format_whitelist": allowed},
            **options,
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(f"{show(path)}: not a video or damaged beyond reading ({one_line(error)})") from error
    container.flags &= ~Flags.gen_pts.value  # invented presentation times are wrong for H.264 in AVI
    return container
