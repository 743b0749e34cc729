"""PSNR and SSIM on luma and on RGB, and the artifact loss of LDL, of 8-bit RGB images (H, W, 3)."""

import numpy as np


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 luma in 16..235, unrounded, as MATLAB's rgb2ycbcr defines it; (H, W) float64."""
    return image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


def psnr(truth: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255; infinite for equal images."""
    error = np.mean((truth.astype(np.float64) - image.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(truth: np.ndarray, image: np.ndarray) -> float:
    """SSIM of Wang et al. (2004): Gaussian window of sigma 1.5, (H, W) or the mean over the channels of (H, W, 3)."""
    from skimage.metrics import structural_similarity

    value = structural_similarity(
        truth.astype(np.float64),
        image.astype(np.float64),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if truth.ndim == 3 else None,
    )
    return float(np.mean(value))


def artifact_loss(truth: np.ndarray, image: np.ndarray, window: int = 7) -> float:
    """LDL's perception-sensitive pixel loss (Liang et al., 2022), times 1000.

    Absolute residuals, summed over channels of images in [0, 1], are weighted by their local variance in a
    `window` x `window` neighbourhood and by the fifth root of their variance over the frame; the loss is the mean
    absolute error under these weights. LDL's refinement by a moving average of the network has no place here. The
    paper's Table 4 does not tell its scale, so only the order of methods can be compared with it.
    """
    import cv2

    difference = (image.astype(np.float64) - truth.astype(np.float64)) / 255
    residual = np.abs(difference).sum(2)
    size, edges = (window, window), cv2.BORDER_REFLECT_101
    mean = cv2.blur(residual, size, borderType=edges)
    pixels = window * window
    local = (cv2.blur(residual**2, size, borderType=edges) - mean**2).clip(0) * pixels / (pixels - 1)
    weight = residual.var(ddof=1) ** 0.2 * local
    return float(1000 * np.mean(weight[..., None] * np.abs(difference)))
