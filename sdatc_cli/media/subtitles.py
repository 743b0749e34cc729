"""Text subtitles from one codec to another, for containers that cannot hold them as they are."""

from fractions import Fraction
from typing import Any

from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

_TEXT = {"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"}
_NATIVE = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
_FINEST = 192_000  # ticks a second: three hours may pass between two texts


def text_codec(stream: Stream, container: str) -> str | None:
    """The codec a text subtitle stream can be converted to for a container; None if there is none."""
    context = stream.codec_context
    if stream.type != "subtitle" or context is None or context.name not in _TEXT:
        return None
    return _NATIVE.get(container)


def _finest(stream: Stream) -> Fraction:
    """A clock for timed text that no other stream of the output beats, as far as the input tells.

    FFmpeg's MP4 writer compares the end of a text with the times of other streams, each in its own clock: where the
    text's is coarser, the end is written too soon and a text that overlaps moves behind it. No finer than needed, for
    it holds no gap of more than 2^31 ticks, which would be 36 minutes of microseconds.
    """
    ticks = [48_000]  # what sound may be converted to; the writer itself makes coarse clocks of video up to 20000
    for other in stream.container.streams:
        ticks.append((other.time_base or Fraction(1)).denominator)
        if isinstance(other, VideoStream):
            ticks.append((other.average_rate or Fraction(1)).numerator)
        elif isinstance(other, AudioStream):
            ticks.append(other.codec_context.sample_rate or 1)
    return Fraction(1, min(max(ticks), _FINEST))


class TextConverter:
    """One subtitle stream on its way into another codec; italics and bold survive where the codec has them."""

    def __init__(self, stream: Stream, output: OutputContainer, codec: str) -> None:
        """Adds the stream to `output`. Raises av.error.FFmpegError or ValueError if this FFmpeg cannot convert it."""
        source: Any = stream.codec_context
        decoder: Any = CodecContext.create(source.codec.name, "r")
        decoder.extradata = source.extradata
        decoder.open(strict=False)
        self._decoder = decoder
        self.stream: Any = output.add_stream(codec)
        context = self.stream.codec_context
        context.subtitle_header = decoder.subtitle_header
        base = _finest(stream) if codec == "mov_text" else stream.time_base
        context.time_base = base
        self.stream.time_base = base
        context.open(strict=False)

    def convert(self, packet: Packet) -> list[Packet]:
        """The packet in the other codec, with the same times; none if nothing of it is text.

        Raises av.error.FFmpegError.
        """
        found = self._decoder.decode2(packet)
        if found is None or not len(found):
            return []
        converted = self.stream.codec_context.encode_subtitle(found)
        converted.time_base = packet.time_base
        converted.pts, converted.dts, converted.duration = packet.pts, packet.dts, packet.duration
        return [converted]

    def finish(self) -> list[Packet]:
        """Nothing is held back."""
        return []
