"""A video written in stretches that survive a crash, joined at the end.

Every stretch holds STRETCH frames of the input (at multiples of STRETCH of the absolute frame index) and is encoded by
an encoder of its own, so it depends on nothing but its frames: the output is the same, to the bit, whether or not the
work was interrupted in between.
"""

import errno
import itertools
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error

from sdatc_cli.engine.journal import Journal, Segment
from sdatc_cli.engine.packets import Packet, PacketFile, decoding_times, read_packets, reorder_delay
from sdatc_cli.errors import OutputError
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.encoders import EncodeOptions
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.read import Frame
from sdatc_cli.media.video_sink import VideoSink

STRETCH = 48  # frames; a multiple of plan.STRIDE
MARGIN = 64 << 20  # bytes of disk that are left free
BYTES_PER_PIXEL = 0.04  # of output: 16 Mbit/s at 1080p; stretches and the joined file both need them


def check_room(folder: Path, size: tuple[int, int], frames: int) -> None:
    """OutputError when the disk of `folder` has clearly too little room for so many frames of (width, height)."""
    need = 2 * int(size[0] * size[1] * frames * BYTES_PER_PIXEL) + MARGIN
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OutputError(
            f"{show(folder)}: the output needs about {need / 1e9:.1f} GB while it is made, and {free / 1e9:.1f} GB are "
            "free; make room, or give --work-dir on another disk"
        )


class SegmentedVideo:
    """Takes restored frames in order, as `MediaWriter` does, and keeps finished stretches in a journal.

    A context manager. Frames below `done` are there already. On an exception the finished stretches stay, and the work
    folder goes when there are none. `tile` is noted with each stretch.
    """

    def __init__(
        self,
        journal: Journal,
        info: MediaInfo,
        size: tuple[int, int],
        options: EncodeOptions,
        start: float | None,
        duration: float | None,
    ) -> None:
        """`size` is (width, height). Raises UsageError for settings that do not fit; OutputError."""
        self.notices: list[str] = []
        self.tile: int | None = None
        self._journal = journal
        self._settings = (info, *size, options, start, duration)
        self._open: _Stretch | None = None
        self._next()

    @property
    def done(self) -> int:
        """Absolute index of the first frame that is not there yet."""
        segments = self._journal.segments
        return segments[-1].stop if segments else 0

    @property
    def stored(self) -> int:
        """Frames that are there."""
        return sum(segment.frames for segment in self._journal.segments) + (self._open.frames if self._open else 0)

    def __enter__(self) -> "SegmentedVideo":
        return self

    def write(self, frame: Frame) -> None:
        """Takes the next frame. OutputError when the disk is full or the output cannot be written."""
        try:
            stretch = self._open or self._next()
            if stretch.frames and frame.index // STRETCH != stretch.first // STRETCH:
                self._finish_stretch()
                stretch = self._next()
            stretch.write(frame)
        except OSError as error:
            raise self._trouble(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None and kind is not None:
            self._open.abort()
        try:
            if kind is None:
                self._join()
                self._journal.remove()
        except OSError as trouble:
            raise self._trouble(trouble) from trouble
        finally:
            self._open = None
            self._journal.abandon()

    def _next(self) -> "_Stretch":
        journal = self._journal
        self._open = _Stretch(journal.folder, journal.out, len(journal.segments), self._settings)
        if journal.segments:
            self._open.go_on(journal.segments[-1], self.stored)
        return self._open

    def _finish_stretch(self) -> None:
        stretch, self._open = self._open, None
        if stretch is None:
            return
        if not stretch.frames:
            stretch.abort()
            return
        self._journal.append(stretch.close(self.tile))
        written = sum(segment.size for segment in self._journal.segments)
        free = shutil.disk_usage(self._journal.folder).free
        if free < written + MARGIN:  # the joined output needs as much again
            raise OSError(errno.ENOSPC, "the disk is nearly full")

    def _join(self) -> None:
        self._finish_stretch()
        sink = _Joined(self._journal.out, *self._settings)
        try:
            for packet in self._packets():
                sink.add(*packet)
        except BaseException:
            sink.abort()
            raise
        sink.repaired(self._journal.segments[-1].repaired if self._journal.segments else 0)
        sink.finish()
        self.notices = sink.notices

    def _packets(self) -> Iterator[tuple[Packet, int]]:
        """All packets in decoding order with their decoding times."""
        segments = self._journal.segments
        paths = [self._journal.folder / segment.name for segment in segments]
        delay = max((segment.delay for segment in segments), default=0)
        shown = (sorted(packet.pts for packet in read_packets(path, payloads=False)) for path in paths)
        stamps = itertools.chain.from_iterable(shown)
        packets = itertools.chain.from_iterable(read_packets(path) for path in paths)
        return zip(packets, decoding_times(stamps, delay), strict=False)

    def _trouble(self, error: OSError) -> OutputError:
        """What a person can do about a failure of the disk."""
        kept = sum(segment.frames for segment in self._journal.segments)
        again = f"; {kept} finished frames are kept, the same command goes on from there" if kept else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{show(self._journal.folder.parent)}: the disk is full{again}")
        return OutputError(f"{show(self._journal.out)}: cannot be written ({one_line(error)}){again}")


class _Stretch(VideoSink):
    """Encodes the frames of one stretch into a packet file. The container it opens only settles the encoder."""

    def __init__(self, folder: Path, out: Path, number: int, settings: tuple[Any, ...]) -> None:
        self.first = self.stop = self.frames = 0
        self._name = f"{number:06}.packets"
        self._file: PacketFile | None = None
        super().__init__(folder / f"container{out.suffix}", *settings)
        self._file = PacketFile(folder / self._name)

    def go_on(self, before: Segment, count: int) -> None:
        """Takes over the clock where the stretch before stopped."""
        self._last, self._repaired, self._count = before.last_pts, before.repaired, count

    def write(self, frame: Frame) -> None:
        if not self.frames:
            self.first = frame.index
        super().write(frame)
        self.frames += 1
        self.stop = frame.index + 1

    def _encode(self, picture: Any) -> None:
        assert self._file is not None
        try:
            for packet in self._stream.encode(picture):
                self._file.write(Packet(packet.pts, packet.duration or 0, packet.is_keyframe, bytes(packet)))
        except (av.error.FFmpegError, ValueError, MemoryError) as error:
            raise OutputError(f"{show(self._out)}: cannot be encoded ({one_line(error)})") from error

    def close(self, tile: int | None) -> Segment:
        """Flushes the encoder and brings the file to the disk. OSError."""
        assert self._file is not None and self._last is not None
        self._encode(None)
        digest = self._file.close()
        path, size = self._file.path, self._file.size
        self._file = None
        self.abort()
        numbers = (self.first, self.stop, self.frames, size)
        return Segment(self._name, *numbers, digest, reorder_delay(path), self._last, self._repaired, tile)

    def abort(self) -> None:
        super().abort()
        if self._file is not None:
            self._file.discard()
            self._file = None


class _Joined(VideoSink):
    """The output itself, from packets that are encoded already."""

    def add(self, packet: Packet, decoding_time: int) -> None:
        """Writes one packet, and what of the other streams belongs before it."""
        encoded = av.Packet(packet.payload)
        encoded.stream = self._stream
        encoded.time_base = self._base
        encoded.pts, encoded.dts, encoded.duration = packet.pts, decoding_time, packet.duration
        encoded.is_keyframe = packet.keyframe
        self._count += 1
        try:
            self._output.mux(encoded)
            if self._copier is not None:
                self._copier.advance(float(Fraction(decoding_time) * self._base))
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"{show(self._out)}: cannot be written ({one_line(error)})") from error

    def repaired(self, count: int) -> None:
        """How many timestamps the stretches had to move."""
        self._repaired = count

    def _encode(self, picture: Any) -> None:
        """Nothing is encoded here; `finish` asks for the encoder's rest, and there is none."""
