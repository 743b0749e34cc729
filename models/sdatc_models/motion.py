"""The motion between all frames of a clip, which fusion follows.

Flow is found between neighbours only, once for all the clips that show both, in threads of its own, so that a card does
not wait for it; to the frames farther off it leads from one neighbour to the next.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import LUMA, dis, flows, warp
from .recent import Recent

Searches = list[Callable[[], Tensor]]  # one a pair of neighbours: waits for the flows there and back, (2, 2, 2h, 2w)


class Motion:
    """Flows between the neighbours of a film, those of the last clip of up to `clip_length` frames kept.

    They are found on frames enlarged twice, where a codec's blocks and a flow's whole pixels disturb less.
    """

    def __init__(self, clip_length: int):
        self._recent: Recent[Callable[[], Tensor]] = Recent(clip_length - 1)

    def begin(self, clip: Tensor, frames: Sequence[int], method: str, device: torch.device) -> Searches:
        """Has the flows of a clip (N, 3, h, w) of the absolute `frames` found by "dis", or by "raft" on `device`.

        ModuleNotFoundError for "raft" where torchvision is not installed.
        """
        clip = clip.cpu()  # where DIS works
        pool = ThreadPoolExecutor(torch.get_num_threads(), "flow")

        def make(pair: Tensor) -> Callable[[], Tensor]:
            if method == "raft":
                large = F.interpolate(pair.to(device), scale_factor=2, mode="bicubic", align_corners=False)
                found = flows(large, [(0, 1), (1, 0)], method)
                return lambda: found
            first, second = (pool.submit(_doubled_grey, frame.numpy()) for frame in pair)
            there = pool.submit(lambda: dis(first.result(), second.result()))
            back = pool.submit(lambda: dis(second.result(), first.result()))
            return lambda: torch.from_numpy(np.stack([there.result(), back.result()]))

        try:
            return [self._recent.get((frames[i], method), clip[i : i + 2], make) for i in range(len(clip) - 1)]
        finally:
            pool.shutdown(wait=False)  # its threads end when the flows are found


def _doubled_grey(frame: np.ndarray) -> np.ndarray:
    """Luma (2h, 2w) uint8 of a frame (3, h, w) in [0, 1]."""
    luma = np.tensordot(np.array(LUMA, np.float32), frame, 1)
    large = cv2.resize(luma, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    return np.rint(large.clip(0, 1) * 255).astype(np.uint8)


def clip_motion(neighbours: Tensor) -> Tensor:
    """Flows (N, N - 1, 2, H, W) from each of N frames to the others in their order.

    `neighbours` (N - 1, 2, 2, H, W): the flows of each pair of neighbours there and back. By way of frame b, a to c is
    F_ac(p) = F_ab(p) + F_bc(p + F_ab(p)).
    """
    count = len(neighbours) + 1
    motion = neighbours.new_empty(count, count - 1, *neighbours.shape[2:])
    for i in range(count):
        onward = [(j - 1, neighbours[j - 1, 0]) for j in range(i + 1, count)]
        backward = [(j, neighbours[j, 1]) for j in range(i - 1, -1, -1)]
        for way in (onward, backward):
            flow = None
            for place, step in way:
                flow = step if flow is None else flow + warp(step[None], flow[None])[0]
                motion[i, place] = flow
    return motion
