"""Text subtitles from one codec to another, for containers that cannot hold them as they are."""

from typing import Any

from av.codec.context import CodecContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

_TEXT = {"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"}
_NATIVE = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}


def text_codec(stream: Stream, container: str) -> str | None:
    """The codec a text subtitle stream can be converted to for a container; None if there is none."""
    context = stream.codec_context
    if stream.type != "subtitle" or context is None or context.name not in _TEXT:
        return None
    return _NATIVE.get(container)


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
        context.time_base = stream.time_base
        self.stream.time_base = stream.time_base
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
