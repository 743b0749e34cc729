"""Optical flow between the frames of a clip; between neighbours also on the latent grid, with an occlusion mask.

A flow F of shape (2, H, W) holds (x, y) displacements in pixels of its own grid: frame a at p shows what frame b
shows at p + F(p), and `warp(b, F)` brings b onto a.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from itertools import pairwise

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adjoint import Adjoint
from .sending import sent

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class ClipFlow:
    """Flows of a clip of N frames on one grid. `to_next[i]` leads from frame i to i + 1, `to_previous[i]` from i + 1
    to i, both (N - 1, 2, H, W); the masks (N - 1, 1, H, W) are 1 where the flow can be trusted."""

    to_next: Tensor
    to_previous: Tensor
    next_mask: Tensor
    previous_mask: Tensor

    @cached_property
    def grids(self) -> tuple[Tensor, Tensor]:
        """`sampling_grid` of `to_next` and of `to_previous`, made once for all steps of a diffusion."""
        return sampling_grid(self.to_next), sampling_grid(self.to_previous)

    @cached_property
    def adjoints(self) -> tuple[Adjoint, Adjoint]:
        """The adjoints of sampling at `grids`."""
        to_next, to_previous = self.grids
        return Adjoint.of(to_next), Adjoint.of(to_previous)


def sampling_grid(flow: Tensor) -> Tensor:
    """p + flow(p) for a flow (N, 2, H, W) in pixels, as `sampled` takes it, (N, H, W, 2)."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device), indexing="ij"
    )
    at_x = (x + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    at_y = (y + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    return torch.stack([at_x, at_y], -1)


def sampled(image: Tensor, grid: Tensor) -> Tensor:
    """`image` (N, C, H, W) bilinearly at the places of a `sampling_grid`. Edges are repeated."""
    return F.grid_sample(image, grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=True)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """`image` (N, C, H, W) at p + flow(p); flow (N, 2, H, W) in pixels."""
    return sampled(image, sampling_grid(flow))


def resample(flow: Tensor, height: int, width: int) -> Tensor:
    """Bring a flow (N, 2, h, w) to another grid; x and y displacements scale with their own axes."""
    x, y = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False).unbind(1)
    return torch.stack([x * (width / flow.shape[-1]), y * (height / flow.shape[-2])], 1)


def trusted(flow: Tensor, back: Tensor) -> Tensor:
    """1 where the flow and the flow back agree: |f + warp(b)| <= 0.01 (|f| + |b|) + 0.5; (N, 1, H, W)."""
    returned = warp(back, flow)
    length = flow.norm(dim=1, keepdim=True) + returned.norm(dim=1, keepdim=True)
    return ((flow + returned).norm(dim=1, keepdim=True) <= 0.01 * length + 0.5).to(flow.dtype)


def dis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """OpenCV's DIS flow (Kroeger et al., 2016) from a to b, uint8 grey (H, W) -> (2, H, W); zero below 16 pixels."""
    if min(a.shape) < 16:
        return np.zeros((2, *a.shape), np.float32)
    flow = np.zeros((*a.shape, 2), np.float32)
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return solver.calc(a, b, flow).transpose(2, 0, 1)


def flows(frames: Tensor, pairs: Sequence[tuple[int, int]], method: str) -> Tensor:
    """Flows (P, 2, h, w) from frame i to frame j of frames (N, 3, h, w) in [0, 1], for P pairs (i, j).

    `method` is "dis" or "raft". ModuleNotFoundError for "raft" where torchvision is not installed.
    """
    return dis_flows(frames, pairs) if method == "dis" else raft_flows(frames, pairs)


def grey(frames: Tensor) -> np.ndarray:
    """Luma (N, h, w) uint8 of frames (N, 3, h, w) in [0, 1]."""
    weights = frames.new_tensor(list(LUMA)).view(1, 3, 1, 1)
    return ((frames * weights).sum(1).clamp(0, 1) * 255).round().byte().cpu().numpy()


def dis_flows(frames: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """`flows` by DIS."""
    images = grey(frames)
    with ThreadPoolExecutor(torch.get_num_threads(), "flow") as pool:
        found = list(pool.map(lambda pair: dis(images[pair[0]], images[pair[1]]), pairs))
    return sent(torch.from_numpy(np.stack(found)), frames.device)


@cache
def _raft(device: torch.device) -> nn.Module:
    """torchvision's small RAFT on a device, loaded once; whether in inference mode or not, usable in both."""
    raft = import_module("torchvision.models.optical_flow")
    with torch.inference_mode(False):
        model = raft.raft_small(weights=raft.Raft_Small_Weights.DEFAULT)
        return model.to(device).eval().requires_grad_(False)


def raft_flows(frames: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """`flows` by torchvision's RAFT."""
    height, width = frames.shape[-2:]
    size = (max(128, -(-height // 8) * 8), max(128, -(-width // 8) * 8))
    large = F.interpolate(frames, size=size, mode="bilinear", align_corners=False) * 2 - 1
    a, b = (large[list(indices)] for indices in zip(*pairs, strict=True))
    return resample(_raft(frames.device)(a, b)[-1], height, width)


def clip_flow(frames: Tensor, grid: tuple[int, int], method: str) -> ClipFlow | None:
    """Flows of a clip (N, 3, h, w) between neighbours on the latent `grid`; None for one frame or method "none"."""
    if method == "none" or frames.shape[0] < 2:
        return None
    onward = list(pairwise(range(frames.shape[0])))
    back = [(b, a) for a, b in onward]
    to_next, to_previous = resample(flows(frames, [*onward, *back], method), *grid).chunk(2)
    return ClipFlow(to_next, to_previous, trusted(to_next, to_previous), trusted(to_previous, to_next))
