"""Frames in, restored frames out: the network part of a run, without threads, files or a terminal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sdatc_cli.engine.plan import LENGTH, Blender, Clip, clips
from sdatc_cli.engine.resize import reduce
from sdatc_cli.engine.scenes import mark_cuts
from sdatc_cli.errors import DeviceError, InputError
from sdatc_cli.media.info import SMALLEST_EDGE
from sdatc_cli.media.read import Frame

Network = Callable[[Tensor, Sequence[int]], Tensor]  # (N, 3, h, w), absolute indices -> (N, 3, 4h, 4w)


def restore_frames(
    frames: Iterable[Frame], network: Network, scale: int = 4, wanted: Callable[[int], bool] = lambda index: True
) -> Iterator[Frame]:
    """Restores a stream; holds a handful of frames whatever its length.

    Yields one frame for every frame that goes in, in order, `scale` (2, 3 or 4) times larger, with the same timestamps
    and the same pixel type. Frames whose absolute index is not `wanted` are looked at but not yielded, and only
    restored where they share a clip with a wanted one.
    """
    yield from _restored(clips(_marked(frames)), network, scale, wanted)


def restore_part(frames: Iterable[Frame], network: Network, scale: int, first: int, stop: int) -> Iterator[Frame]:
    """The frames [first, stop) of `restore_frames` of a whole stream, to the bit, from a part of the stream.

    `first` and `stop` are multiples of plan.STRIDE. The part is what the stream has of [first - LENGTH, stop + LENGTH).
    """
    yield from _restored(clips(_marked(frames), first - LENGTH), network, scale, range(first, stop).__contains__)


def _restored(
    clips: Iterable[Clip[Frame]], network: Network, scale: int, wanted: Callable[[int], bool]
) -> Iterator[Frame]:
    blender = Blender()
    waiting: dict[int, Frame] = {}  # timestamps of the frames in the blender; their `image` is the source's pixel type
    leaving: list[Leaving] = []

    def finish(finished: Iterable[tuple[int, Tensor]]) -> list[Leaving]:
        ended = [(waiting.pop(index), image) for index, image in finished]
        return [Leaving.begin(frame, image) for frame, image in ended if wanted(frame.index)]

    for clip in clips:
        if not any(map(wanted, range(clip.start, clip.stop))):
            continue
        for frame in clip.items:
            waiting.setdefault(frame.index, replace(frame, image=frame.image[:0]))
        try:
            images = _restore_clip(clip, network, scale)
        finally:  # what was made before a failure shall not be lost by it
            yield from (frame.arrived() for frame in leaving)  # a card is at work on this clip meanwhile
        leaving = finish(blender.push(clip.start, images, clip.opens))
        if leaving and leaving[0].copied is None:
            yield from (frame.arrived() for frame in leaving)
            leaving = []
    yield from (frame.arrived() for frame in [*leaving, *finish(blender.flush())])


@dataclass(frozen=True)
class Leaving:
    """A restored frame on its way from the device, which goes on computing meanwhile. `frame.image` tells the type."""

    frame: Frame
    pixels: Tensor  # (H, W, 3) on the host
    finite: Tensor  # one bool on the host: no value was infinite or NaN, which pixels cannot show
    copied: "torch.cuda.Event | None"  # when a card has filled them

    @staticmethod
    def begin(frame: Frame, image: Tensor) -> "Leaving":
        """Sends `image` (3, H, W), float32 in [0, 1]."""
        made = (to_pixels(image, frame.image.dtype), image.sum().isfinite())
        if not image.is_cuda:
            pixels, finite = (part.cpu() for part in made)
            return Leaving(frame, pixels, finite, None)
        pixels, finite = (torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in made)
        for host, part in zip((pixels, finite), made, strict=True):
            host.copy_(part, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(image.device))
        return Leaving(frame, pixels, finite, copied)

    def arrived(self) -> Frame:
        """The frame with its pixels, waited for. DeviceError when the networks made no picture of it."""
        if self.copied is not None:
            self.copied.synchronize()
        if not self.finite:
            raise DeviceError(
                f"frame {self.frame.index}: the networks came to values that are no numbers; "
                "try --dtype fp32, a lower --guidance, or another model"
            )
        return replace(self.frame, image=self.pixels.numpy().astype(self.frame.image.dtype, copy=False))


def _marked(frames: Iterable[Frame]) -> Iterator[tuple[int, Frame, bool]]:
    """(absolute index, frame, whether a scene begins with it)."""
    return ((frame.index, frame, cut) for frame, cut in mark_cuts(_checked(frames)))


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames again. InputError when they are too small or not of one size."""
    size: tuple[int, ...] | None = None
    for frame in frames:
        height, width = frame.image.shape[:2]
        size = size or (height, width)
        if min(size) < SMALLEST_EDGE:
            raise InputError(f"frames of {width}x{height} are too small; {SMALLEST_EDGE}x{SMALLEST_EDGE} is the least")
        if (height, width) != size:
            raise InputError(f"frame {frame.index} is {width}x{height}, those before are {size[1]}x{size[0]}")
        yield frame


def _restore_clip(clip: Clip[Frame], network: Network, scale: int) -> Tensor:
    """(N, 3, scale h, scale w) float32 in [0, 1], on the network's device, of a clip of frames (h, w, 3)."""
    pixels = np.stack([frame.image for frame in clip.items])
    height, width = pixels.shape[1:3]
    with torch.no_grad():
        restored = network(to_tensor(pixels), range(clip.start, clip.stop))
        return reduce(restored.float(), scale * height, scale * width)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(N, h, w, 3) of uint8 or uint16 -> (N, 3, h, w) float32 in [0, 1]."""
    peak = np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(peak))


def to_pixels(image: Tensor, dtype: np.dtype) -> Tensor:
    """(3, H, W) float32 in [0, 1] -> (H, W, 3) on the same device, rounded to the levels of uint8 or uint16: uint8, or
    int32 for the latter, in which PyTorch computes little."""
    peak = np.iinfo(dtype).max
    levels = (image.clamp(0, 1) * peak + 0.5).to(torch.uint8 if dtype == np.uint8 else torch.int32)
    return levels.permute(1, 2, 0).contiguous()
