"""A video file being written: encoded frames, and everything else of the input copied beside them."""

import contextlib
import math
from fractions import Fraction
from typing import Any

import av
import av.error
from av.packet import Packet

from sdatc_cli.errors import OutputError
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.probe import ALPHA_TAG
from sdatc_cli.media.read import Frame
from sdatc_cli.media.remux import StreamCopier, live_tags
from sdatc_cli.media.tags import has_free_keys, lost_dispositions, lost_tags
from sdatc_cli.media.target import TargetFile
from sdatc_cli.media.video_track import LONGEST, VideoTrack

_MOST_NAMES = 12  # of tags that are left out


class VideoSink:
    """Writes frames, or packets that are encoded already, into a temporary file.

    `finish` completes and names it, `abort` removes it.
    """

    def __init__(self, plan: OutputPlan) -> None:
        """Raises UsageError if codec, options and container do not fit; OutputError if the output cannot be written."""
        self._plan = plan
        self._track = VideoTrack(plan)
        self.notices = self._track.notices
        self._count = 0
        self._target = TargetFile(plan.out, plan.overwrite)
        self._output: Any = None
        self._copier: StreamCopier | None = None
        try:
            self._begin()
        except BaseException:
            self.abort()
            raise

    def _begin(self) -> None:
        """Opens the file, adds the streams in the input's order and writes the header."""
        info, track, start, duration = self._plan.info, self._track, self._plan.start, self._plan.duration
        if info.kind == "video":
            end = None if duration is None else (start or 0.0) + duration
            self._copier = StreamCopier(info, track.format, start, end, track.shift)
        self._output = av.open(
            f"file:{self._target.path}", "w", format=track.format, container_options=self._container_options()
        )
        if self._copier is not None:
            self._copier.add_streams(self._output, before=True)
        track.add_to(self._output)
        if self._copier is not None:
            self._copier.add_streams(self._output, before=False)
            self._copy_header(self._copier)
            self._copier.begin()
            self.notices += self._copier.notices
            self._copier.notices.clear()
        track.open(self._output)

    def _container_options(self) -> dict[str, str]:
        """Keep the muxer from moving frames, and from writing dates and random numbers into the file.

        AVI counts in whole frames: shifted by the priming of its sound, the video would get a hole. MP4 counts the time
        before the first frame in a clock of its own: let it be as fine as the frames'.
        """
        options = {"fflags": "+bitexact"}
        if self._track.format == "avi":
            options["avoid_negative_ts"] = "disabled"
        if self._track.format in ("mp4", "mov"):
            scale = self._track.clock.base.denominator
            options["movie_timescale"] = str(scale * -(-10_000 // scale))
            if self._copier is not None and has_free_keys(self._plan.info, self._copier.input.metadata):
                options["movflags"] = "use_metadata_tags"
        return options

    def _copy_header(self, copier: StreamCopier) -> None:
        """Tags and chapters."""
        source = copier.input.streams[self._plan.info.video_index]
        stream = self._track.stream
        tags, whole = live_tags(source.metadata), live_tags(copier.input.metadata)
        if self._plan.start and "timecode" in tags | whole:
            for known in (tags, whole):
                known.pop("timecode", None)
            self.notices.append("timecode left out: it is that of the input's beginning")
        stream.metadata.update({k: v for k, v in tags.items() if k.casefold() not in ("rotate", ALPHA_TAG)})
        stream.disposition = source.disposition
        self._output.metadata.update(whole)
        chapters = self._chapters(copier)
        if chapters and self._track.format in ("mpegts", "avi"):
            self.notices.append(f"{len(chapters)} chapters left out: {self._track.format} cannot hold them")
        elif chapters:
            self._output.set_chapters(chapters)

    def _chapters(self, copier: StreamCopier) -> list[Any]:
        """Those of the wanted part, in the output's clock."""
        chapters = []
        for chapter in copier.input.chapters():
            base = chapter["time_base"] or Fraction(1, 1000)
            shift = round(Fraction(self._track.shift) / base)
            start, end = chapter["start"] - shift, chapter["end"] - shift
            limit = math.inf if self._track.end is None else round(self._track.end / base)
            if start < limit and (start >= 0 or end > 0):
                chapters.append({**chapter, "start": max(start, 0), "end": min(end, limit)})
        return chapters

    def write(self, frame: Frame) -> None:
        """Encodes one frame and copies what belongs before it. OutputError."""
        self._count += 1
        for packet in self._track.encode(frame):
            self._mux(packet)

    def write_encoded(self, payload: bytes, pts: int, dts: int, duration: int, keyframe: bool) -> None:
        """Writes one packet of a `PacketEncoder` for this output, and what belongs before it. OutputError.

        Times count in the encoder's clock; `dts` must rise. Frames and encoded packets do not mix.
        """
        packet = Packet(payload)
        packet.stream = self._track.stream
        packet.time_base = self._track.clock.base
        packet.pts, packet.dts = pts, dts
        packet.duration = min(duration, int(LONGEST / packet.time_base))
        packet.is_keyframe = keyframe
        self._count += 1
        self._mux(packet)

    def _mux(self, packet: Packet) -> None:
        stamp = packet.dts if packet.dts is not None else packet.pts
        try:
            seconds = float((stamp or 0) * packet.time_base)
            self._output.mux(packet)
            if self._copier is not None:
                self._copier.advance(seconds)
        except (av.error.FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
            raise OutputError(f"{show(self._plan.out)}: cannot be written ({one_line(error)})") from error

    def finish(self, repaired: int = 0) -> None:
        """Flushes the encoder, copies the rest, writes the trailer, and gives the file its name.

        `repaired`: how many timestamps had to be moved before the encoded packets came here. OutputError.
        """
        if self._count == 0:
            self.abort()
            raise OutputError(f"{show(self._plan.out)}: not written, for there is no frame to put into it")
        repaired += self._track.clock.state.repaired
        try:
            if self._track.clock.state.count:
                for packet in self._track.encode(None):
                    self._mux(packet)
            if self._copier is not None:
                self._copier.advance(None)
                self._copier.close()
                self.notices += self._copier.notices
            tags = [stream.metadata for stream in self._output.streams if stream.type != "attachment"]
            dispositions = [int(stream.disposition) for stream in self._output.streams]
            self._output.close()
            self._tell_lost_tags(tags)
            self._tell_lost(lost_dispositions(self._target.path, dispositions), "dispositions")
        except (av.error.FFmpegError, ValueError, ArithmeticError) as error:
            self.abort()
            raise OutputError(f"{show(self._plan.out)}: cannot be written ({one_line(error)})") from error
        except BaseException:
            self.abort()
            raise
        if repaired:
            why = "avi knows only a constant rate" if self._track.format == "avi" else "they did not advance"
            self.notices.append(f"{repaired} frames were moved behind their predecessors: {why}")
        self._target.commit()

    def _tell_lost_tags(self, tags: list[dict[str, str]]) -> None:
        """Names those of the output and the `tags` of its streams that did not come into the finished file."""
        self._tell_lost(lost_tags(self._target.path, self._output.metadata, tags), "tags")

    def _tell_lost(self, lost: list[str], what: str) -> None:
        if lost:
            names = ", ".join(lost[:_MOST_NAMES]) + (f" and {len(lost) - _MOST_NAMES} more" * (len(lost) > _MOST_NAMES))
            hint = "" if self._track.format == "matroska" else "; .mkv can"
            self.notices.append(f"{what} left out: {self._track.format} cannot hold {names}{hint}")

    def abort(self) -> None:
        """Remove what was written."""
        if self._copier is not None:
            self._copier.close()
        if self._output is not None:
            with contextlib.suppress(Exception):  # whatever the muxer says of a file that is thrown away
                self._output.close()
        self._target.discard()
