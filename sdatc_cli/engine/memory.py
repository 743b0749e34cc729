"""How much memory there is, how much was used, and what to do when it runs out."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import cv2
import psutil
import torch
from torch import Tensor

from sdatc_cli.engine.confines import memory_left
from sdatc_cli.errors import DeviceError
from sdatc_cli.host_memory import host_memory_ran_out
from sdatc_cli.settings import SMALLEST_TILE
from sdatc_models.config import ModelConfig, base, lite
from sdatc_models.restorer import RestoreOptions

SHARE = 0.7  # of the free memory that a clip may fill
# What a clip takes at the peak, beside the weights. lite: measured in fp32 with every part at work, from 112x96 to
# 320x256; base: one measurement (128x128 LR pixels, bf16, an H200). Where it is too low, the tile is halved on the way.
BUFFER_BYTES = 300_000_000  # however small the clip
FRAME_BYTES = 1_300  # of every LR pixel of a frame, whatever the tile: x_HR, the picture, its colours corrected
TILE_BYTES = {"lite": 7_500, "base": 150_000}  # of every LR pixel of a frame inside a tile

SIGNS = (  # of an allocator that found no memory, in the message of a RuntimeError
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cudnn_status_alloc",
    "cublas_status_alloc_failed",
    "unable to find an engine to execute this computation",  # cuDNN, of which each engine asks for memory of its own
)


class CanRestore(Protocol):
    """What the engine needs of a network."""

    def restore(self, clip: Tensor, frames: Sequence[int], options: RestoreOptions) -> Tensor:
        """clip (N, 3, h, w) in [0, 1] -> (N, 3, 4h, 4w) in [0, 1]; `frames` are the absolute indices."""
        ...


R = TypeVar("R", bound=CanRestore)


class Frugal(Generic[R]):
    """Restores clips; when memory runs out it halves the tile, says so, and goes on with the smaller one.

    `options.tile` is what it begins with; `notice` receives one line for a person.
    """

    def __init__(self, restorer: R, options: RestoreOptions, notice: Callable[[str], None]) -> None:
        self.restorer = restorer
        self.options = options
        self.notice = notice

    def __call__(self, clip: Tensor, frames: Sequence[int]) -> Tensor:
        """As `Restorer.restore`. DeviceError when even the smallest tile does not fit."""
        while True:
            try:
                return self.restorer.restore(clip, frames, self.options)
            except (RuntimeError, MemoryError, cv2.error) as error:
                if not ran_out_of_memory(error):
                    raise
            # Out of the except block: the failed call's tensors are free by now.
            tile = smaller_tile(self.options.tile, max(clip.shape[-2:]))
            self.options = replace(self.options, tile=tile)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.notice(f"memory ran out at frame {frames[0]}; going on with tiles of {tile} pixels")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocator found no memory, on any device."""
    if isinstance(error, torch.OutOfMemoryError) or host_memory_ran_out(error):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in SIGNS)


def smaller_tile(tile: int | None, edge: int) -> int:
    """Half of the tile, or of the frame's longer edge when there was none. DeviceError below SMALLEST_TILE."""
    current = min(tile or edge, edge)
    if current <= SMALLEST_TILE:
        raise DeviceError(
            f"memory ran out even with tiles of {current} pixels; free some memory, use --device cpu or a smaller model"
        )
    return max(SMALLEST_TILE, current // 2)


def tile_bytes(config: ModelConfig) -> float:
    """The networks' peak for one LR pixel of one frame inside a tile: what was measured of their family, and more for
    networks whose feature maps are larger than those that were measured."""
    measured = {"lite": lite(), "base": base()}[config.family]
    return TILE_BYTES[config.family] * max(1.0, _largest_map(config) / _largest_map(measured))


def _largest_map(config: ModelConfig) -> float:
    """Values of the largest feature map for one LR pixel: of the DCM inside or enlarging, or of the autoencoder."""
    dcm, vae = config.dcm, config.vae
    return max(dcm.dim * dcm.expansion, 16 * dcm.up_dim, 16 * vae.channels[0] / vae.stem**2)


def clip_bytes(frames: int, height: int, width: int, tile: int | None, tile_bytes: float) -> float:
    """The most memory that restoring a clip of LR frames takes beside the weights.

    tile_bytes: the networks' peak for one LR pixel of one frame inside a tile, as `tile_bytes` foretells it.
    """
    inside = height * width if tile is None else min(tile, height) * min(tile, width)
    return BUFFER_BYTES + frames * (height * width * FRAME_BYTES + inside * tile_bytes)


def tile_for(free: int | None, frames: int, height: int, width: int, tile_bytes: float) -> int | None:
    """The largest tile edge (LR pixels) whose clip fits SHARE of `free` bytes; None for whole frames.

    Where nothing fits it is the smallest tile. An unknown `free` (None) is taken as enough.
    """
    if free is None or clip_bytes(frames, height, width, None, tile_bytes) <= SHARE * free:
        return None
    room = max(0.0, SHARE * free - clip_bytes(frames, height, width, 0, tile_bytes))
    edge = int((room / (frames * tile_bytes)) ** 0.5) // 16 * 16
    return max(SMALLEST_TILE, edge)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; of the host's, those that this process may have."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept from earlier work
        return torch.cuda.mem_get_info(device)[0] + unused
    free = psutil.virtual_memory().available
    left = memory_left()
    return free if left is None else min(free, left)


def peak_bytes(device: torch.device) -> dict[str, int]:
    """The most memory this process held so far: {"host": bytes, "device": bytes (CUDA only, with that of graphs)}."""
    peak = {}
    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.type == "cuda":
        peak["device"] = torch.cuda.max_memory_reserved(device)
    return peak
