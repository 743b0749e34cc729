"""What a stage trains with: typed settings, and the recipes of `lite` and of the paper's `base`."""

from dataclasses import dataclass, field

from .losses import ImageLossWeights


@dataclass(frozen=True)
class Recipe:
    """Settings of one stage. Patches are HR edges in pixels; fractions are of the whole run."""

    batch: int
    frames: int
    patch: int
    lr: float
    weights: ImageLossWeights = field(default_factory=ImageLossWeights)
    mse: float = 1.0  # weight of the diffusion's own squared error
    perceptual_from: float = 0.0  # LPIPS and DISTS join at this fraction, or at once in a run from a trained model
    adversarial_from: float = 1.0  # the discriminator joins at this fraction
    tuning: float = 1.0  # the share of lr in a run from a trained model
    warmup: int = 100  # steps of linear learning-rate warm-up
    final_lr: float = 0.02  # cosine floor, as a fraction of lr; 1 keeps the rate constant
    ema: float = 0.999
    clip_norm: float = 0.5


LITE = {
    "vae": Recipe(batch=6, frames=1, patch=96, lr=2e-4, weights=ImageLossWeights(lpips=0.5, dists=0.25)),
    "dcm": Recipe(
        batch=3,
        frames=1,
        patch=192,
        lr=3e-4,
        weights=ImageLossWeights(l1=0.5, lpips=1.5, dists=0.8, grid=2.0),
        perceptual_from=0.35,
        tuning=0.5,
        ema=0.998,
    ),
    "diffusion": Recipe(
        batch=4,
        frames=1,
        patch=192,
        lr=2e-4,
        weights=ImageLossWeights(l1=0.5, lpips=1.5, dists=1.0, grid=2.0),
        mse=0.02,
        ema=0.998,
    ),
    "decoder": Recipe(
        batch=1,
        frames=5,
        patch=96,
        lr=2e-4,
        weights=ImageLossWeights(l1=1.0, lpips=1.0, dists=1.0, adversarial=0.01, difference=0.5),
        adversarial_from=0.1,
    ),
}

# The paper's: clip 5, batch 4, patch 512, Adam at 5e-5; the schedule is constant.
_PAPER = Recipe(batch=4, frames=5, patch=512, lr=5e-5, final_lr=1.0, warmup=0, ema=0.9999)
BASE = {
    "vae": _PAPER,
    "dcm": _PAPER,
    "diffusion": _PAPER,
    "decoder": Recipe(
        batch=4,
        frames=5,
        patch=512,
        lr=5e-5,
        weights=ImageLossWeights(l1=1.0, lpips=1.0, adversarial=0.025, difference=0.5),
        adversarial_from=0.5,
        final_lr=1.0,
        warmup=0,
        ema=0.9999,
    ),
}
RECIPES = {"lite": LITE, "base": BASE}  # by ModelConfig.family
