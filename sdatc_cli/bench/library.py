"""MANIQA, CLIP-IQA and FID through pyiqa (extra `metrics`), which brings torchvision and downloads its weights."""

import functools
import threading
from pathlib import Path

import numpy as np

from sdatc_cli.errors import ModelError

from .metrics import PYIQA

NAMES = {"maniqa": "maniqa", "clip-iqa": "clipiqa", "fid": "fid"}
_one_at_a_time = threading.Lock()  # frames are scored by many threads: each would load a network, and fill the memory


@functools.cache
def metric(name: str, device: str):
    """pyiqa's metric of our name; ModelError when the package or its weights cannot be had."""
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]

        return pyiqa.create_metric(NAMES[name], device=device)
    except ImportError as error:
        raise ModelError(f"{name} needs pyiqa ({error}); run: {PYIQA}") from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{name}: pyiqa could not load it ({reason})") from error


def score(name: str, image: np.ndarray, device: str) -> float:
    """A no-reference score of an (H, W, 3) RGB uint8 image."""
    from .networks import to_tensor

    with _one_at_a_time:
        return float(metric(name, device)(to_tensor(image, device)))


def fid(images: Path, truth: Path, device: str) -> float:
    """FID between all PNGs below two folders. ModelError when one is not there."""
    for folder in (images, truth):
        if not folder.is_dir():
            raise ModelError(f"fid needs the restored frames, and {folder} is gone; run again with -y")
    return float(metric("fid", device)(str(images), str(truth)))
