"""Random real degradation for training: reduce four times, encode with a real codec, decode."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from io import BytesIO

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from sdatc_cli.media import quantiser
from sdatc_cli.media.encoders import steady_x264
from sdatc_cli.media.headers import PictureHeaders

SCALE = 4


@dataclass(frozen=True)
class Damage:
    """One random degradation. Exactly one of `crf` and `bitrate` (bit/s) is set; mpeg4 knows the bit rate only."""

    kernel: str
    codec: str
    crf: int | None
    bitrate: int | None
    fps: int

    def describe(self) -> dict[str, str | int | None]:
        return asdict(self)


def random_damage(rng: np.random.Generator, pixels: int) -> Damage:
    """Draw a degradation for LR frames of `pixels`: CRF 10-40 or the paper's 10-100 kbit/s (at 320x180) by area."""
    kernel = str(rng.choice(["bicubic", "area", "gaussian", "lanczos"], p=[0.7, 0.1, 0.1, 0.1]))
    codec = str(rng.choice(["libx264", "libx265", "mpeg4"], p=[0.85, 0.08, 0.07]))
    fps = int(rng.choice([15, 25, 30]))
    if codec == "mpeg4" or rng.random() < 0.15:
        share = pixels / (320 * 180)
        return Damage(kernel, codec, None, max(2000, int(np.exp(rng.uniform(np.log(1e4), np.log(1e5))) * share)), fps)
    return Damage(kernel, codec, int(rng.integers(10, 41)), None, fps)


def reduce_clip(clip: np.ndarray, kernel: str) -> np.ndarray:
    """(n, H, W, 3) uint8 -> (n, H/4, W/4, 3) uint8. "bicubic" is Pillow's, as in the paper's protocol."""
    size = (clip.shape[2] // SCALE, clip.shape[1] // SCALE)

    def reduce(frame: np.ndarray) -> np.ndarray:
        if kernel == "area":
            return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        if kernel == "gaussian":
            return cv2.GaussianBlur(frame, (0, 0), 1.5)[1::SCALE, 1::SCALE]
        method = Image.Resampling.BICUBIC if kernel == "bicubic" else Image.Resampling.LANCZOS
        return np.asarray(Image.fromarray(frame).resize(size, method))

    return np.stack([reduce(frame) for frame in clip])


def swscaled(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) uint8 RGB of a frame, by swscale's quick conversion."""
    return frame.to_ndarray(format="rgb24", threads=1)


def compress(
    clip: np.ndarray, damage: Damage, to_rgb: Callable[[av.VideoFrame], np.ndarray] = swscaled
) -> tuple[np.ndarray, float | None]:
    """Encode and decode (n, h, w, 3) uint8 in memory, 4:2:0, default preset; same shape back, and the quantiser.

    In one thread each: those of PyAV's decoders and frames live until Python collects them, and would pile up by the
    thousand.
    """
    options = {"crf": str(damage.crf)} if damage.crf is not None else {}
    if damage.codec == "libx264":
        options |= steady_x264()
    if damage.codec == "libx265":
        options["x265-params"] = "log-level=none"
    buffer = BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream(damage.codec, rate=Fraction(damage.fps), options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = clip.shape[2], clip.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        if damage.bitrate is not None:
            stream.bit_rate = damage.bitrate
        for image in clip:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", threads=1)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    buffer.seek(0)
    frames: list[av.VideoFrame] = []
    told: list[float | None] = []
    with av.open(buffer, "r") as back:
        stream = back.streams.video[0]
        stream.codec_context.options, stream.codec_context.thread_count = quantiser.OPTIONS, 1
        headers = PictureHeaders(stream)
        for packet in back.demux(stream):
            frames += packet.decode()
            told += quantiser.packet_quantisers(headers, packet)
    told += map(quantiser.frame_quantiser, frames)
    decoded = np.stack([to_rgb(frame) for frame in frames])
    if decoded.shape != clip.shape:
        raise ValueError(f"{damage.codec} returned {decoded.shape} for {clip.shape}")
    return decoded, quantiser.run_quantiser(told)


def degrade_clip(clip: np.ndarray, damage: Damage) -> tuple[np.ndarray, float | None]:
    """The low-quality version of a high-resolution clip, and its quantiser, None where its codec does not tell."""
    return compress(reduce_clip(clip, damage.kernel), damage)


def jpegs(frames: np.ndarray, quality: int) -> tuple[np.ndarray, float | None]:
    """Frames (N, h, w, 3) uint8, each as a JPEG of its own, and what these tell."""
    files = [BytesIO() for _ in frames]
    for file, frame in zip(files, frames, strict=True):
        Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.stack([np.asarray(Image.open(file)) for file in files]), quantiser.pictures_quantiser(files)
