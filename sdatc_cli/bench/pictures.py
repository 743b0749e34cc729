"""The pictures of the report: one still, a temporal profile and a short loop of each restored clip, as WebP."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .methods import SCALE, Job

QUALITY = 92
LOOP_EDGE = 288
LOOP_FRAMES = 24
PROFILE_LEAST = 120  # pixels of height
INPUT, TRUTH = "input", "truth"


def keep(folder: Path, images: Sequence[np.ndarray] | np.ndarray, frames: Sequence[int], wanted: Sequence[int]) -> None:
    """Writes still.webp, and loop.webp and profile.webp where frames follow each other without a gap.

    images: (H, W, 3) RGB uint8 of the indices `frames`; wanted: the indices that are scored, the still is their middle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    still = images[list(frames).index(middle(wanted))]
    Image.fromarray(still).save(folder / "still.webp", quality=QUALITY)
    if len(frames) < 2 or frames[-1] - frames[0] != len(frames) - 1:
        return
    Image.fromarray(profile(images)).save(folder / "profile.webp", quality=QUALITY)
    height, width = still.shape[:2]
    edge = min(height, width, LOOP_EDGE)
    top, left = (height - edge) // 2, (width - edge) // 2
    loop = [Image.fromarray(image[top : top + edge, left : left + edge]) for image in images[:LOOP_FRAMES]]
    loop[0].save(folder / "loop.webp", save_all=True, append_images=loop[1:], duration=80, loop=0, quality=QUALITY - 6)


def keep_input(root: Path, job: Job, truth: Sequence[np.ndarray]) -> None:
    """Writes the pictures of the ground truth and of the compressed input, its pixels repeated."""
    clip = root / TRUTH / "crf0" / job.clip
    if not (clip / "still.webp").is_file():
        keep(clip, truth, range(len(truth)), job.wanted)
    folder = root / INPUT / f"crf{job.crf}" / job.clip
    if not (folder / "still.webp").is_file():
        enlarged = [np.repeat(np.repeat(image, SCALE, 0), SCALE, 1) for image in job.frames]
        keep(folder, enlarged, range(len(enlarged)), job.wanted)


def middle(wanted: Sequence[int]) -> int:
    """The frame that stands for a clip."""
    return wanted[len(wanted) // 2]


def profile(images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """The middle row of each frame, one below the other, each repeated so that the picture can be seen."""
    rows = np.stack([image[image.shape[0] // 2] for image in images])
    return np.repeat(rows, max(1, -(-PROFILE_LEAST // len(images))), axis=0)
