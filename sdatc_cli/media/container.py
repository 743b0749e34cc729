"""Opening untrusted input files with FFmpeg's libraries: local files only, no playlists, errors as one line."""

import mmap
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import av
import av.error
import av.logging
from av.container import Flags, InputContainer
from av.packet import Packet
from av.stream import Discard, Stream

from sdatc_cli.errors import InputError

MAX_PIXELS = 1 << 26  # 8192 x 8192; a header that claims more is taken for a lie

# Demuxers that open further files, read devices or networks, draw text, or read numbered files by pattern.
_REFUSED_FORMATS = {
    "alsa", "applehttp", "avfoundation", "avisynth", "concat", "dash", "dshow", "dvdvideo", "fbdev", "gdigrab", "hls",
    "image2", "image2pipe", "imf", "kmsgrab", "lavfi", "mlv", "oss", "pulse", "rtp", "rtsp", "sap", "sdp", "svg_pipe",
    "tedcaptions", "tty", "v4l2", "vapoursynth", "video4linux2", "vobsub", "x11grab", "xcbgrab",
}  # fmt: skip
# What `--allow-protocols` may name: the protocols of FFmpeg that each needs, and its demuxers.
OUTSIDE: dict[str, tuple[str, str]] = {
    "concat": ("concat", "concat"), "crypto": ("crypto", ""), "dash": ("", "dash"), "data": ("data", ""),
    "ftp": ("ftp,tcp", ""), "hls": ("", "hls"), "http": ("http,httpproxy,tcp", ""),
    "https": ("https,httpproxy,tls,tcp", ""), "rtmp": ("rtmp,tcp", ""), "rtmps": ("rtmps,tls,tcp", ""),
    "rtp": ("rtp,udp", "rtp,sdp"), "rtsp": ("rtp,tcp,udp", "rtsp"), "subfile": ("subfile", ""), "tcp": ("tcp", ""),
    "udp": ("udp", ""),
}  # fmt: skip
_PLAYLISTS = {b"#EXTM3U": "hls", b"ffconcat": "concat", b"<MPD": "dash", b"v=0\r\n": "rtp", b"v=0\no=": "rtp",
              b"[playlist]": "", b"[reference]": ""}  # fmt: skip
_PREFIX = re.compile(r"([a-z][a-z0-9+.-]+)(?:,[^:]*)?:", re.IGNORECASE)
_NEVER = {"async", "bluray", "cache", "concatf", "fd", "hls", "pipe", "srt", "tls", "unix"}  # FFmpeg has them too


def one_line(error: BaseException) -> str:
    """The message of an exception on one line, without FFmpeg's error number and the file name."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def show(path: Path) -> str:
    """A path as it may stand in a one-line message: control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def protocol_of(path: Path) -> str | None:
    """The protocol that a name asks for in FFmpeg's way, in lower case; None for the name of a file."""
    match = _PREFIX.match(str(path))
    if match is None or path.exists():
        return None
    name = match[1].lower()
    return name if name in OUTSIDE or name in _NEVER or str(path)[match.end() :].startswith("/") else None


def check_input(path: Path, protocols: tuple[str, ...] = ()) -> None:
    """Refuse what is not a readable, non-empty local file or folder, or one of `protocols`.

    Raises InputError.
    """
    try:
        asked = protocol_of(path)
        if asked is not None:
            if asked not in protocols:
                raise InputError(f"{show(path)}: only local files are read, not protocols; {_permission(asked)}")
            return
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
    if text.startswith(b"<?xml") and b"<MPD" in text:
        text = b"<MPD"
    kind = next((kind for start, kind in _PLAYLISTS.items() if text.startswith(start)), None)
    if kind is not None and kind not in protocols:
        advice = "give the video file itself" + (f", or {_permission(kind)}" if kind else "")
        raise InputError(f"{show(path)}: a playlist, not a video; {advice}")


def _permission(name: str) -> str:
    """What a person can do about a protocol that is refused."""
    return f"--allow-protocols {name} lets it through" if name in OUTSIDE else "download the video first"


def open_input(path: Path, protocols: tuple[str, ...] = (), **options: Any) -> InputContainer:
    """Open a local media file, or what `protocols` (names of OUTSIDE) allow; the caller closes it.

    Raises InputError if FFmpeg cannot read it.
    """
    check_input(path, protocols)
    allowed = [OUTSIDE[name] for name in protocols]
    refused = _REFUSED_FORMATS.difference(*(demuxers.split(",") for _, demuxers in allowed))
    formats = ",".join(sorted(name for name in av.formats_available if not refused & set(name.split(","))))
    try:
        container = av.open(
            _address(path),
            metadata_errors="replace",
            container_options={
                "protocol_whitelist": ",".join(["file", *(names for names, _ in allowed if names)]),
                "format_whitelist": formats,
            },
            **options,
        )
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(f"{show(path)}: not a video or damaged beyond reading ({one_line(error)})") from error
    container.flags &= ~Flags.gen_pts.value  # invented presentation times are wrong for H.264 in AVI
    return container


def pass_over_others(container: InputContainer, wanted: Collection[Stream]) -> None:
    """Has FFmpeg pass over the streams that are not `wanted`, which saves reading what lies apart from them."""
    for stream in container.streams:
        if stream not in wanted:
            stream.discard = Discard.all


def demux(container: InputContainer, *streams: Stream) -> Iterator[Packet]:
    """Packets of `streams` as they lie in the file, then an empty one of each, which lets a decoder empty itself.

    A stream that FFmpeg meets only on the way is never among them: see `late_streams`.
    """
    try:
        yield from container.demux(streams)
    except IndexError:  # where there are such streams, PyAV may look for them among those it knows, at the end
        return


def late_streams(container: InputContainer) -> list[str]:
    """What was met on the way through the file beyond `container.streams`, like "Audio: aac"; read it first."""
    av.logging.set_level(av.logging.INFO)  # the one way in which PyAV tells of them is FFmpeg's log
    try:
        told = cast(Any, container).dumps_format()  # not in PyAV's type stubs
    finally:
        av.logging.set_level(None)
    found = re.findall(r"^  Stream #0:(\d+)[^:\n]*: (\w+: \w+)", told, re.MULTILINE)
    return [what for index, what in found if int(index) >= len(container.streams)]


def refers_outside(path: Path) -> bool:
    """Whether a QuickTime file says that its data lie in another file: an "alis" in a "dref" box, with a name in it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"dref")
        while at >= 0:
            if data[at + 16 : at + 20] == b"alis" and int.from_bytes(data[at + 12 : at + 16], "big") > 150:
                return True
            at = data.find(b"dref", at + 4)
    return False


def _address(path: Path) -> str:
    """What FFmpeg is asked to open: never a name that it could take for something else than a file by itself."""
    asked = protocol_of(path)
    if asked is None:
        return f"file:{path.absolute()}"
    if asked in ("concat", "crypto", "data", "subfile"):
        return str(path)
    return re.sub(r"^([^:]*):/+", r"\1://", str(path))  # a Path keeps only one of the slashes
