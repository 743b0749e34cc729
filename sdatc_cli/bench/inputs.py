"""The compressed inputs: made once from the ground truth, cached under a key of recipe and content."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from sdatc_cli import __version__, cache
from sdatc_cli.engine.coarseness import coarseness
from sdatc_cli.errors import InputError
from sdatc_cli.media.degrade import Recipe, degrade, encoder_settings
from sdatc_cli.media.evidence import evidence
from sdatc_cli.media.ffmpeg import ffmpeg_version
from sdatc_cli.media.images import eight_bits
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import FrameReader
from sdatc_models.blind import load_estimator

from .datasets import Clip

SCALE = 4
RATE = Fraction(25)


@dataclass(frozen=True)
class Compressed:
    """One compressed clip: `key` identifies how it was made from what, `frames` are (h, w, 3) RGB uint8.

    `quantiser`: how coarsely, as `sdatc upscale` takes it (engine/coarseness.py).
    """

    path: Path
    key: str
    sha256: str
    frames: list[np.ndarray]
    quantiser: float | None


def cache_folder() -> Path:
    """Where compressed inputs are kept."""
    return cache.cache_folder("bench")


def recipe_for(clip: Clip, crf: int, kernel: str) -> Recipe:
    """The paper's protocol at one CRF: reduced by 4, one x264 encode with the default preset, every frame once.

    A folder counts 25 frames a second, a video keeps its own rate (Vid4's are at 25).
    """
    return Recipe(crf=crf, scale=SCALE, kernel=kernel, fps=RATE if clip.path.is_dir() else None)


def recipe_key(clip_digest: str, recipe: Recipe, frames: int | None) -> str:
    """A name for the compressed clip that changes whenever its content would: with the encoder's version, too."""
    made = {"recipe": asdict(recipe), "encoder": encoder_settings(recipe), "clip": clip_digest, "frames": frames}
    made["by"] = [__version__, ffmpeg_version()]
    return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()[:32]


def compress(clip: Clip, digest: str, recipe: Recipe, frames: int | None, count: int) -> Compressed:
    """The clip, reduced and compressed; read from the cache where it was made before.

    digest: the clip's; frames: how many from its start (None: all); count: how many that are. InputError when the
    encoder lost a frame.
    """
    key = recipe_key(digest, recipe, frames)
    path = cache_folder() / f"{key}.mkv"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{key}-{os.getpid()}.mkv")
        degrade(clip.path, fresh, recipe, frames=frames, overwrite=True)
        side = Path(f"{fresh}.json")
        if side.is_file():
            os.replace(side, f"{path}.json")
        os.replace(fresh, path)
    info = probe(path)
    with FrameReader(info) as reader:
        images = [eight_bits(frame.image) for frame in reader]
    if len(images) != count:
        raise InputError(f"clip {clip.name}: {len(images)} frames after compression, expected {count}: {path}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Compressed(path, key, digest, images, coarseness(evidence(info), load_estimator()).quantiser)
