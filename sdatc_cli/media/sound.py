"""Sound from one codec to another, only where the output's container cannot hold it as it is."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av.error
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.codec.codec import Codec
from av.codec.context import CodecContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

# Without loss where the container has such a codec that players know.
_CODECS = {"matroska": "flac", "nut": "flac", "mov": "alac", "mp4": "aac", "mpegts": "aac", "webm": "libopus",
           "avi": "pcm_s16le"}  # fmt: skip
_BITS_PER_CHANNEL = 96_000  # a second, for the lossy ones
LEAST_GAP = 0.05  # seconds without sound that are not missed, nor noticed where sound is early
_LONGEST_GAP = 3600.0  # seconds; what would take more silence is a wrong time
_FINE = ("s32", "s32p", "dbl", "dblp")


def sound_codec(stream: Stream, container: str) -> str | None:
    """The codec a sound track can be converted to for a container; None if it cannot be decoded."""
    if stream.type != "audio" or stream.codec_context is None:
        return None
    codec = _CODECS.get(container)
    if codec == "alac" and not _takes(codec, stream.codec_context):
        codec = "pcm_s16le"  # for its layouts of speakers are few
    return "pcm_s24le" if codec == "pcm_s16le" and _fine(stream.codec_context) else codec


def _takes(codec: str, source: Any) -> bool:
    """Whether an encoder takes what a decoder delivers."""
    try:
        _taken_layout(codec, source, source.sample_rate, channel_layout(source))
    except (av.error.FFmpegError, ValueError, ArithmeticError):
        return False
    return True


def _fine(source: Any) -> bool:
    """Whether a decoder delivers more than 16 bits of a lossless codec."""
    return source.format is not None and source.format.name in _FINE


def _set_up(context: Any, source: Any, rate: int, layout: str) -> None:
    """Open an encoder for what a decoder delivers. Raises av.error.FFmpegError."""
    codec = context.name
    context.sample_rate, context.layout = rate, layout
    if codec in ("flac", "alac"):
        planar = "p" if codec == "alac" else ""
        context.format = ("s32" if _fine(source) else "s16") + planar
    else:
        context.format = context.codec.audio_formats[0]
    if codec in ("aac", "libopus"):
        context.bit_rate = _BITS_PER_CHANNEL * source.layout.nb_channels
    context.time_base = Fraction(1, rate)
    context.open(strict=False)


def _taken_layout(codec: str, source: Any, rate: int, layout: str) -> str:
    """The layout that an encoder takes: `layout`, else one with the speakers behind instead of beside the listener,
    else the usual one of that many channels. Raises ValueError for none.
    """
    for name in dict.fromkeys([layout, layout.replace("(side)", ""), f"{source.layout.nb_channels}c"]):
        with contextlib.suppress(av.error.FFmpegError, ValueError):
            trial: Any = CodecContext.create(codec, "w")
            _set_up(trial, source, rate, name)
            return name
    raise ValueError(f"{codec} takes no sound of {source.layout.nb_channels} channels")


def channel_layout(context: Any) -> str:
    """The layout of a decoder's channels; the usual one where the file says only how many there are, as AVI does.

    There may be none for such a number: "9 channels" then.
    """
    layout = context.layout
    if layout.name != f"{layout.nb_channels} channels":
        return layout.name
    try:
        return AudioLayout(f"{layout.nb_channels}c").name
    except ValueError:
        return layout.name


class SoundConverter:
    """One sound track on its way into another codec, with its times and channels."""

    def __init__(self, stream: Stream, output: OutputContainer, codec: str) -> None:
        """Adds the track to `output`. Raises av.error.FFmpegError or ValueError if this FFmpeg cannot convert it."""
        source: Any = stream.codec_context
        if not source.sample_rate or not source.layout.nb_channels:
            raise ValueError("sound without a rate or channels")
        rates = Codec(codec, "w").audio_rates
        fits = codec != "libopus" and (not rates or source.sample_rate in rates)
        rate = source.sample_rate if fits else 48_000
        layout = channel_layout(source)
        if layout != source.layout.name:
            source.layout = layout  # else frames come out with nameless channels, that nothing can be made of
        layout = _taken_layout(codec, source, rate, layout)
        self.stream: Any = output.add_stream(codec, rate=rate)
        context = self.stream.codec_context
        _set_up(context, source, rate, layout)
        self._resampler = AudioResampler(context.format, context.layout, rate, context.frame_size or None)
        self._decoder = source
        self._tick: Fraction = stream.time_base or Fraction(1, rate)
        self._fills = codec.startswith("pcm_")
        self._next = 0 if self._fills else None

    def convert(self, packet: Packet) -> list[Packet]:
        """Packets in the other codec that are ready after this one.

        Raises av.error.FFmpegError.
        """
        return [ready for frame in packet.decode() for whole in self._counted(frame) for ready in self._encode(whole)]

    def finish(self) -> list[Packet]:
        """The last packets, with what the decoder holds back too."""
        held: list[Packet] = []
        with contextlib.suppress(av.error.FFmpegError, ValueError):  # the end may be as broken as any packet
            for frame in self._decoder.decode(None):
                held += [ready for whole in self._counted(frame) for ready in self._encode(whole)]
        return [*held, *self._encode(None), *self.stream.codec_context.encode(None)]

    def _encode(self, frame: Any) -> list[Packet]:
        return [ready for whole in self._resampler.resample(frame) for ready in self.stream.codec_context.encode(whole)]

    def _counted(self, frame: Any) -> Iterator[Any]:
        """The frame with its time counted in samples, the clock of all that follows: the input's may be coarser.

        Frames that lie within a tick of their place, or before it, go on behind the last sample. PCM is for AVI, which
        has no times: silence comes before a frame that lies further behind.
        """
        per_tick = self._tick * frame.sample_rate
        at = None if frame.pts is None else round(frame.pts * per_tick)
        if self._next is None:
            self._next = at or 0
        gap = 0 if at is None else at - self._next
        if self._fills and LEAST_GAP < gap / frame.sample_rate < _LONGEST_GAP:
            while gap > 0:
                silence = _silence(frame, min(gap, frame.sample_rate))
                gap -= silence.samples
                yield self._placed(silence)
        elif not self._fills and gap > max(per_tick, 1):
            self._next += gap
        yield self._placed(frame)

    def _placed(self, frame: Any) -> Any:
        """The frame behind the last sample."""
        frame.pts, frame.time_base = self._next, Fraction(1, frame.sample_rate)
        self._next += frame.samples
        return frame


def _silence(like: Any, samples: int) -> AudioFrame:
    """A frame of the same kind as another, in which nothing is heard."""
    frame = AudioFrame(like.format.name, like.layout, samples)
    frame.sample_rate = like.sample_rate
    for plane in frame.planes:
        plane.update(bytes([128 if like.format.name.startswith("u8") else 0]) * plane.buffer_size)
    return frame
