"""Copies everything but the restored video from the input into the output, packet by packet."""

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import av.error
from av.container import OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Disposition, Stream
from av.video.stream import VideoStream

from sdatc_cli.errors import OutputError
from sdatc_cli.media.container import demux, one_line, open_input, pass_over_others
from sdatc_cli.media.info import MediaInfo, StreamInfo
from sdatc_cli.media.probe import stream_info
from sdatc_cli.media.sound import LEAST_GAP, SoundConverter, channel_layout, sound_codec
from sdatc_cli.media.subtitles import TextConverter, text_codec

# Formats that describe themselves (brands, statistics): false once the video is another one. Matroska's are capitals.
STALE_TAGS = {"encoder", "software", "major_brand", "minor_version", "compatible_brands", "duration", "bps",
               "number_of_frames", "number_of_bytes", "_statistics_writing_app", "_statistics_writing_date_utc",
               "_statistics_tags"}  # fmt: skip
# FFmpeg's MPEG-TS writer takes every codec, but as private data that nothing can play.
_TS_HOLDS = {"aac", "ac3", "eac3", "mp2", "mp3", "mp2float", "mp3float", "dca", "dts", "opus", "libopus", "truehd",
             "s302m", "pcm_bluray", "dvbsub", "dvb_subtitle", "pgssub", "hdmv_pgs_subtitle", "dvb_teletext",
             "libzvbi_teletextdec", "h264", "hevc", "mpeg2video", "mpeg1video", "scte_35", "timed_id3"}  # fmt: skip
# AVI has no times. Of these it counts the packets, all of one length, if it is not told the size of a block.
_AVI_COUNTS = {"aac", "ac3", "mp2", "mp2float", "mp3", "mp3float"}
# Of these FFmpeg counts bytes that are not the samples', or fills the place of each sample with an empty packet.
_AVI_MISCOUNTS = {"dca", "eac3", "flac", "vorbis"}
_COVERS = {"matroska", "mp4"}  # MOV would silently drop them
_PICTURES = {"png": "image/png", "mjpeg": "image/jpeg", "gif": "image/gif", "bmp": "image/bmp", "tiff": "image/tiff",
             "webp": "image/webp"}  # fmt: skip
_QUICKTIME_LANGUAGES = {"deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb"}
_EQUAL_TIMES = 0x20000  # AVFMT_TS_NONSTRICT: packets may stand at the same time, as TrueHD's do in Matroska
_EDIT_LISTS = {"mp4", "mov"}  # containers that hide what they hold and should not be heard
_PRIMING = 0.15  # seconds of sound before the beginning that an encoder needs, and that are not missed nor noticed
_LATE = 10.0  # seconds after the end at which no packet of the wanted part can follow


def _ticks(time: int, base: Fraction, tick: Fraction) -> int:
    """A time in another clock, rounded as FFmpeg does it: halves away from zero."""
    exact = abs(time) * base / tick
    return math.floor(exact + Fraction(1, 2)) * (-1 if time < 0 else 1)


def live_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata without the entries that describe the old file rather than the work."""
    return {k: v for k, v in metadata.items() if k.lower().split("-")[0] not in STALE_TAGS}


def can_hold(stream: Stream, container: str) -> bool:
    """Whether a container takes a stream as it is, found by writing the header of a file with it alone; PCM wants a
    packet and the end as well, for MP4 looks at its channels no sooner.
    """
    info = stream_info(stream)
    if (info.cover and container not in _COVERS) or (info.kind == "attachment" and container != "matroska"):
        return False
    if container == "mpegts" and info.codec not in _TS_HOLDS:
        return False
    if container == "avi" and info.codec in _AVI_MISCOUNTS:
        return False
    try:
        scratch = av.open(BytesIO(), "w", format=container)
        try:
            copy = _add(scratch, stream)
            scratch.start_encoding()
            if info.codec.startswith("pcm_"):
                scratch.mux(_moment(copy))
                scratch.close()
        finally:
            with contextlib.suppress(av.error.FFmpegError, ValueError):
                scratch.close()
    except (av.error.FFmpegError, ValueError, TypeError, ArithmeticError):
        return False
    return True


def _moment(copy: Any) -> Packet:
    """The shortest packet of PCM that holds whole samples of all sizes, 1 to 4 and 8 bytes."""
    packet = Packet(bytes(24 * copy.codec_context.layout.nb_channels))
    packet.stream, packet.time_base = copy, copy.time_base
    packet.pts = packet.dts = 0
    return packet


def _add(output: OutputContainer, stream: Stream) -> Stream:
    if isinstance(stream, AttachmentStream):
        name, mime = stream.name or f"attachment-{stream.index}", stream.mimetype or "application/octet-stream"
        return output.add_attachment(name, mime, stream.data)
    copy: Any = output.add_stream_from_template(stream, opaque=True)  # type: ignore[arg-type]
    if stream.type == "audio":
        copy.codec_context.layout = channel_layout(stream.codec_context)
        if output.format.name == "avi" and copy.codec_context.name in _AVI_COUNTS:
            copy.codec_context.options = {"block_align": "0"}
            copy.codec_context.open()  # what takes the option over
    return _label(copy, stream, output.format.name)


def _label(copy: Any, stream: Stream, container: str = "", converted: bool = False) -> Stream:
    stale = converted or isinstance(stream, VideoStream)
    copy.metadata.update(live_tags(stream.metadata) if stale else stream.metadata)
    if container == "mov" and stream.language in _QUICKTIME_LANGUAGES:
        copy.metadata["language"] = _QUICKTIME_LANGUAGES[stream.language]
    copy.disposition = stream.disposition
    return copy


def _picture(info: MediaInfo, index: int) -> bytes:
    """The file of a cover picture."""
    with open_input(info.path, info.protocols) as container:
        return next((bytes(p) for p in demux(container, container.streams[index]) if p.size), b"")


class _Hidden:
    """Tells which packets of a sound track an edit list hides; not those of the encoder's priming."""

    def __init__(self) -> None:
        self._primed: bool | None = None

    def __call__(self, packet: Packet) -> bool:
        """For each packet in turn."""
        stream = packet.stream
        if packet.pts is None or stream.start_time is None or stream.time_base is None:
            return False
        ahead = (stream.start_time - packet.pts) * stream.time_base
        if self._primed is None:
            self._primed = ahead <= _PRIMING  # all of a file that was cut is hidden, lest some of it be heard
        return packet.is_discard and not (self._primed and ahead > 0)


def _first_time(info: MediaInfo, index: int) -> float:
    """When a stream begins, in seconds: a header that was read only in part may say zero of one that begins late."""
    with open_input(info.path, info.protocols) as container, contextlib.suppress(av.error.FFmpegError, OSError):
        stream = container.streams[index]
        pass_over_others(container, [stream])
        hidden = _Hidden()
        for packet in demux(container, stream):
            if packet.size and packet.pts is not None and not hidden(packet):
                return float(packet.pts * packet.time_base)
    return 0.0


class StreamCopier:
    """Reads the input a second time and hands its other streams on, in step with the encoded video.

    Times are seconds of the input's clock less `shift`; packets outside [start, end) are left out, sound to the
    packet. `notices` tells what the container cannot hold.
    """

    def __init__(self, info: MediaInfo, container: str, start: float | None, end: float | None, shift: float) -> None:
        self.notices: list[str] = []
        self.input = open_input(info.path, info.protocols)
        self._info, self._container, self._shift = info, container, shift
        self._start = None if start is None else info.start_time + start
        self._end = None if end is None else info.start_time + end
        self._output: OutputContainer | None = None
        self._copies: dict[int, Stream] = {}
        self._converters: dict[int, TextConverter | SoundConverter] = {}
        self._hidden: dict[int, _Hidden] = {}  # of sound that is copied where there are no edit lists
        self._last_dts: dict[int, int] = {}
        self._ticks: dict[int, int] = {}  # of the output's clock, from where on the next packet may stand
        self._failed: dict[int, int] = {}
        self._unopened: set[int] = set()  # copied video, of whose part packets passed before a keyframe came
        self._packets: Iterator[Packet] = iter(())
        self._held: Packet | None = None

    def add_streams(self, output: OutputContainer, before: bool) -> None:
        """Add the streams that stand before (or after) the restored one; call for both in turn, then `begin`."""
        self._output = output
        for stream in self.input.streams:
            if stream.index == self._info.video_index or (stream.index < self._info.video_index) != before:
                continue
            info = stream_info(stream)
            if stream.discard == Discard.all or (info.kind == "data" and "timecode" in stream.metadata):
                continue  # the chapter and timecode tracks of MOV: written anew from chapters and tags
            self._add_stream(output, stream, info)

    def _add_stream(self, output: OutputContainer, stream: Stream, info: StreamInfo) -> None:
        """Add one stream as it is, as an attached file, or converted; else leave it out and say so."""
        if info.cover and self._container == "matroska" and info.codec in _PICTURES:
            name = stream.metadata.get("filename") or f"cover.{info.codec.replace('mjpeg', 'jpg')}"
            picture = _picture(self._info, stream.index)
            _label(output.add_attachment(name, _PICTURES[info.codec], picture), stream)
            return
        early = self._early(stream)
        if early <= LEAST_GAP and can_hold(stream, self._container):
            self._copies[stream.index] = _add(output, stream)
            if stream.type == "audio" and self._container not in _EDIT_LISTS:
                self._hidden[stream.index] = _Hidden()
            return
        text, sound = text_codec(stream, self._container), sound_codec(stream, self._container)
        codec = text or sound
        if codec is not None:
            kind = TextConverter if text else SoundConverter
            with contextlib.suppress(av.error.FFmpegError, ValueError, ArithmeticError):
                with av.open(BytesIO(), "w", format=self._container) as scratch:  # a failure would spoil the output
                    kind(stream, scratch, codec)
                    scratch.start_encoding()
                converter = kind(stream, output, codec)
                self._copies[stream.index] = _label(converter.stream, stream, self._container, converted=True)
                self._converters[stream.index] = converter
                why = "cannot hold it as it is" if early <= LEAST_GAP else f"would begin it {early:.2f} s too early"
                self.notices.append(f"{info} converted to {codec}: {self._container} {why}")
                return
        hint = "" if self._container == "matroska" else "; .mkv can"
        self.notices.append(f"{info} left out: {self._container} cannot hold it{hint}")

    def _early(self, stream: Stream) -> float:
        """Seconds by which a sound track would be moved to the beginning if it were copied: AVI has no times."""
        if self._container != "avi" or stream.type != "audio":
            return 0.0
        return _first_time(self._info, stream.index) - self._shift

    def begin(self) -> None:
        """Start reading; every stream of the output must have been added."""
        wanted = [s for s in self.input.streams if s.index in self._copies and not isinstance(s, AttachmentStream)]
        pass_over_others(self.input, wanted)
        self._packets = demux(self.input, *wanted) if wanted else iter(())

    def advance(self, until: float | None) -> None:
        """Copy packets up to `until` (seconds of the output's clock), or all that are left if None."""
        while True:
            if self._held is None:
                self._held = self._next()
            packet = self._held
            if packet is None:
                if until is None:
                    self._finish_converters()
                return
            time = self._time(packet)
            if until is not None and time is not None and time - self._shift > until:
                return
            self._held = None
            self._copy(packet)

    def _finish_converters(self) -> None:
        """What converters hold back; their input has ended."""
        assert self._output is not None
        for index, converter in self._converters.items():
            for ready in converter.finish():
                ready.stream = self._copies[index]
                self._output.mux(ready)
        self._converters = {}

    def close(self) -> None:
        """Let go of the input and sum up what could not be copied."""
        for index, count in self._failed.items():
            self.notices.append(f"{count} packets of {self._info.streams[index]} could not be copied")
        for index in sorted(self._unopened - set(self._last_dts)):
            self.notices.append(f"{self._info.streams[index]} left out: it has no keyframe in this part to begin with")
        self._failed, self._unopened = {}, set()
        self.input.close()

    def _next(self) -> Packet | None:
        """The next packet of the wanted part."""
        errors = 0
        while errors < 200:
            try:
                for packet in self._packets:
                    if packet.size == 0:
                        continue
                    time = self._time(packet)
                    if self._end is not None and time is not None and time > self._end + _LATE:
                        return None
                    if self._wanted(packet):
                        return packet
                return None
            except (av.error.FFmpegError, OSError):  # damaged stretch: go on behind it
                errors += 1
                streams = [s for s in self.input.streams if s.index in self._copies]
                self._packets = demux(self.input, *(s for s in streams if not isinstance(s, AttachmentStream)))
        return None

    def _wanted(self, packet: Packet) -> bool:
        stream = packet.stream
        hidden = self._hidden.get(stream.index)
        if hidden is not None and hidden(packet):
            return False
        if stream.disposition & Disposition.attached_pic or packet.pts is None:
            return True
        first = float(packet.pts * packet.time_base)
        last = first + float((packet.duration or 0) * packet.time_base)
        if self._end is not None and first >= self._end:
            return False
        if self._start is None:
            return True
        if isinstance(stream, VideoStream):  # a copied one can only begin with a keyframe
            if first < self._start:
                return False
            if not packet.is_keyframe and stream.index not in self._last_dts:
                self._unopened.add(stream.index)
                return False
            return True
        if stream.type == "subtitle":
            return last > self._start or first >= self._start
        return first >= self._start  # half a packet of sound before the picture would shift everything

    def _time(self, packet: Packet) -> float | None:
        stamp = packet.dts if packet.dts is not None else packet.pts
        return None if stamp is None else float(stamp * packet.time_base)

    def _copy(self, packet: Packet) -> None:
        index = packet.stream.index
        assert self._output is not None
        try:
            self._retime(packet, index)
            converter = self._converters.get(index)
            for ready in converter.convert(packet) if converter else [packet]:
                ready.stream = self._copies[index]
                self._output.mux(ready)
        except av.error.OSError as error:
            raise OutputError(f"the output cannot be written ({one_line(error)})") from error
        except (av.error.FFmpegError, ValueError, ArithmeticError):
            self._failed[index] = self._failed.get(index, 0) + 1

    def _retime(self, packet: Packet, index: int) -> None:
        """Shift the packet to the output's clock; repair what muxers refuse: missing or backward decoding times."""
        base = packet.time_base
        shift = round(Fraction(self._shift) / base)
        if packet.stream.disposition & Disposition.attached_pic:
            packet.pts = packet.dts = 0
            return
        if packet.pts is not None:
            moved = packet.pts - shift
            if moved < 0 and self._start is not None and packet.stream.type == "subtitle":
                packet.duration = max((packet.duration or 0) + moved, 0)  # it stands since before the start
                moved = 0
            packet.pts = moved
            if self._end is not None and packet.stream.type == "subtitle":  # else it would lengthen the file
                rest = round(Fraction(self._end - self._shift) / base) - moved
                packet.duration = max(min(packet.duration or 0, rest), 0)
        last = self._last_dts.get(index)
        if packet.stream.type == "subtitle" and packet.pts is not None:
            packet.dts = packet.pts  # what MP4 goes by
        elif packet.dts is not None:
            packet.dts -= shift
        else:
            packet.dts = self._decoding_time(packet, last)
        self._last_dts[index] = packet.dts
        if index not in self._converters and packet.stream.type != "subtitle":
            self._advance(packet, index)
        if packet.pts is None or packet.pts < packet.dts:
            packet.pts = packet.dts

    def _advance(self, packet: Packet, index: int) -> None:
        """Moves a packet that lies before or upon its predecessor, by as little as the container can tell apart; those
        that follow stay where they are.
        """
        assert self._output is not None and packet.dts is not None
        tick = self._copies[index].time_base or packet.time_base
        dts, least = _ticks(packet.dts, packet.time_base, tick), self._ticks.get(index)
        if least is not None and dts < least:
            packet.duration = _ticks(packet.duration or 0, packet.time_base, tick)
            packet.pts = None if packet.pts is None else _ticks(packet.pts, packet.time_base, tick)
            packet.dts, packet.time_base = least, tick
        equal = packet.stream.type == "audio" and self._output.format.flags & _EQUAL_TIMES
        self._ticks[index] = (dts if least is None else max(dts, least)) + (0 if equal else 1)

    def _decoding_time(self, packet: Packet, last: int | None) -> int:
        """When to decode a packet that does not say: in order, and for reordered video ahead of its display."""
        step = max(packet.duration or 0, 1)
        stream = packet.stream
        if isinstance(stream, VideoStream) and stream.codec_context is not None and packet.pts is not None:
            step = max(round(1 / (stream.average_rate or 25) / packet.time_base), 1)
            ahead = packet.pts - stream.codec_context.reorder_depth * step
            return ahead if last is None else min(last + step, max(packet.pts, last + 1))
        if packet.pts is not None:
            return packet.pts
        return 0 if last is None else last + step
