"""How steady a video is: warping error along the ground truth's motion, and tOF. Frames are (H, W, 3) RGB uint8."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Motion:
    """Motion from a frame to its successor: `flow` (H, W, 2) in pixels (x, y), `visible` (H, W) where it is seen."""

    flow: np.ndarray
    visible: np.ndarray


def grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def dis_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow (H, W, 2) from `first` to `second` by OpenCV's DIS, preset MEDIUM."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(flow.calc(grey(first), grey(second), None))  # pyright: ignore[reportArgumentType, reportCallIssue]


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`image` sampled bilinearly at each pixel's place plus its flow; float32, zero outside."""
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(image.astype(np.float32), columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)


def motion(first: np.ndarray, second: np.ndarray) -> Motion:
    """Flow with the forward-backward check: hidden where |f + warp(b)| is not below 0.01 (|f| + |warp(b)|) + 0.5."""
    forward = dis_flow(first, second)
    backward = warp(dis_flow(second, first), forward)
    lengths = np.linalg.norm(forward, axis=-1) + np.linalg.norm(backward, axis=-1)
    return Motion(forward, np.linalg.norm(forward + backward, axis=-1) < 0.01 * lengths + 0.5)


def warping_error(first: np.ndarray, second: np.ndarray, truth: Motion) -> float:
    """Mean absolute difference (levels of 0..255) of a frame and its successor warped back, where it is visible."""
    if not truth.visible.any():
        return float("nan")
    return float(np.abs(first.astype(np.float32) - warp(second, truth.flow))[truth.visible].mean())


def flow_difference(first: np.ndarray, second: np.ndarray, truth: Motion) -> float:
    """tOF (Chu et al., 2020): mean length, in pixels, of the difference between the pair's own flow and the truth's."""
    return float(np.linalg.norm(dis_flow(first, second) - truth.flow, axis=-1).mean())
