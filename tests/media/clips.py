"""Builds inputs for the media tests, from real footage where it is at hand, and takes outputs apart again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from sdatc_cli.media.probe import MediaInfo, probe
from sdatc_cli.media.read import Frame, FrameReader
from sdatc_cli.media.write import EncodeOptions, MediaWriter
from tests.conftest import SHARED, frames_of

FAST = EncodeOptions(preset="ultrafast", crf=20)
VFR = [0, 40, 80, 133, 166, 200, 300, 317, 333, 400, 450, 500, 600, 640, 700, 710, 720, 800, 900, 1000, 1100, 1133,
       1166, 1200, 1300, 1400]  # fmt: skip


def footage(count: int, width: int, height: int) -> list[np.ndarray]:
    """(height, width, 3) RGB frames: of real footage cropped, else of a moving texture."""
    whole = _real_frames()
    if len(whole) < count or height > 360 or width > 500:
        return frames_of(count, width, height)
    return [np.ascontiguousarray(frame[100 : 100 + height, 300 : 300 + width]) for frame in whole[:count]]


@cache
def _real_frames() -> list[np.ndarray]:
    path = SHARED / "data" / "train_video" / "davis_dog.mp4"
    if not path.is_file():
        return []
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in islice(container.decode(video=0), 50)]


def write_video(
    path: Path,
    frames: Iterable[Any],
    times: list[int] | None = None,
    base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    setup: dict[str, Any] | None = None,
    options: dict[str, str] | None = None,
    display: tuple[float, bool] | None = None,
) -> Path:
    """Encode RGB arrays or ready frames at `times` (default 0, 1, ...) of `base`; `setup` sets codec attributes."""
    default = {"preset": "ultrafast", "bf": "2"} if codec == "libx264" else {}
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=25, options=options or default)
        stream.codec_context.time_base = base
        stream.pix_fmt = pix_fmt
        if display is not None:
            stream.set_display_rotation(display[0], hflip=display[1])
        for i, image in enumerate(frames):
            frame = image if isinstance(image, av.VideoFrame) else av.VideoFrame.from_ndarray(image, "rgb24")
            if i == 0:
                stream.width, stream.height = frame.width, frame.height
                for key, value in (setup or {}).items():
                    setattr(stream.codec_context, key, value)
            if frame.format.name != pix_fmt:
                frame = frame.reformat(format=pix_fmt)
            for key in ("colorspace", "color_range", "color_primaries", "color_trc"):
                if setup and key in setup:
                    setattr(frame, key, setup[key])
            frame.pts, frame.time_base = (times[i] if times else i), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def enlarge(frame: Frame, scale: int = 2) -> Frame:
    """What stands in for the network: each pixel repeated."""
    return replace(frame, image=frame.image.repeat(scale, 0).repeat(scale, 1))


def convert(
    source: Path, out: Path, options: EncodeOptions = FAST, scale: int = 2, overwrite: bool = False, **part: float
) -> tuple[list[str], list[str]]:
    """From a file to a file through reader and writer; returns (damage, notices). `part`: start, duration."""
    info = probe(source)
    width, height = scale * info.width, scale * info.height
    with FrameReader(info, **part) as reader:
        with MediaWriter(out, info, width, height, options, overwrite, **part) as writer:
            for frame in reader:
                writer.write(enlarge(frame, scale))
        return reader.damage, writer.notices


def read_all(path: Path, **part: float) -> tuple[MediaInfo, list[Frame], list[str]]:
    """(info, frames, damage)."""
    info = probe(path)
    with FrameReader(info, **part) as reader:
        frames = list(reader)
    return info, frames, reader.damage


@dataclass(frozen=True)
class Parts:
    """One stream taken apart: its description and its packets as (time in seconds, payload)."""

    kind: str
    codec: str
    language: str | None
    title: str | None
    disposition: int
    packets: list[tuple[Fraction, bytes]]
    payload: bytes = b""


def take_apart(path: Path) -> list[Parts]:
    """Every stream of a file."""
    with av.open(str(path)) as container:
        packets: dict[int, list[tuple[Fraction, bytes]]] = {s.index: [] for s in container.streams}
        streams = [s for s in container.streams if s.type != "attachment"]
        for packet in container.demux(streams):
            if packet.size:
                stamp = packet.pts if packet.pts is not None else packet.dts
                packets[packet.stream.index].append(((stamp or 0) * packet.time_base, bytes(packet)))
        return [
            Parts(
                kind=s.type,
                codec=s.codec_context.name if s.codec_context else "",
                language=s.language,
                title=s.metadata.get("title"),
                disposition=int(s.disposition),
                packets=packets[s.index],
                payload=s.data if s.type == "attachment" else b"",
            )
            for s in container.streams
        ]


def times(path: Path) -> list[Fraction]:
    """Presentation times of the frames of the first video stream that is not a cover, in seconds."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def leftovers(folder: Path, *expected: str) -> list[str]:
    """Files in a folder that should not be there."""
    return sorted(set(p.name for p in folder.iterdir()) - set(expected))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Over arrays of 8-bit values."""
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def red_bar(width: int, height: int) -> np.ndarray:
    """A soft red bar in the middle of grey, (height, width, 3) uint8."""
    bump = np.exp(-(((np.arange(width) - (width - 1) / 2) / 6) ** 2))
    row = 100 + np.outer(bump, [90, 0, 0])
    return np.repeat(np.rint(row).astype(np.uint8)[None], height, 0)


def place_of_red(image: np.ndarray) -> float:
    """Where the bar lies, in pixels from the middle."""
    red = image[8:-8].astype(float).mean(0)
    weight = red[:, 0] - red[:, 2]
    return float((weight * np.arange(len(weight))).sum() / weight.sum() - (len(weight) - 1) / 2)


def waves(container: Any) -> np.ndarray:
    """The last sound track as one channel at 44100 Hz."""
    to_plain = av.AudioResampler("fltp", "mono", 44100)
    stream = container.streams.audio[-1]
    frames = [f for frame in container.decode(stream) for f in to_plain.resample(frame)]
    return np.concatenate([f.to_ndarray()[0] for f in [*frames, *to_plain.resample(None)]])
