"""Image losses: L1, LPIPS and DISTS from one pass of VGG16, and a hinge adversarial loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdatc_cli.bench.perceptual import LPIPS, dists_distance, lpips_distance
from sdatc_cli.bench.perceptual_weights import dists_weights


class PerceptualLoss(nn.Module):
    """LPIPS (VGG) and DISTS's similarities over the same max-pooled features.

    DISTS proper pools by l2 and would need a second pass; sharing the features halves the dearest part of a step.
    """

    def __init__(self, dtype: torch.dtype | None = None):
        """`dtype`: compute VGG's features by autocast to it; the distances between them stay in float32."""
        super().__init__()
        self.dtype = dtype
        self.lpips = LPIPS("vgg")
        alpha, beta = dists_weights()
        self.register_buffer("alpha", alpha)
        self.register_buffer("beta", beta)
        self.alpha: Tensor
        self.beta: Tensor

    def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) each, RGB in [0, 1] -> the mean LPIPS and the mean DISTS of `image` to `target`."""
        with torch.no_grad():
            reference = self._features(target)
        features = self._features(image)
        return (
            lpips_distance(features, reference, list(self.lpips.heads)).mean(),
            dists_distance([image, *features], [target, *reference], self.alpha, self.beta).mean(),
        )

    def _features(self, image: Tensor) -> list[Tensor]:
        """VGG's five layers, float32."""
        with torch.autocast(image.device.type, self.dtype, enabled=self.dtype is not None):
            features = self.lpips.features(image.contiguous(memory_format=torch.channels_last))
        return [layer.float() for layer in features]


class Discriminator(nn.Module):
    """PatchGAN with spectral normalisation: (N, 3, H, W) in [0, 1] -> a score for each patch of about 70 pixels."""

    def __init__(self, width: int = 48):
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int) -> nn.Module:
            return nn.utils.parametrizations.spectral_norm(nn.Conv2d(inputs, outputs, 4, stride, 1))

        self.net = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            conv(width, width * 2, 2),
            nn.LeakyReLU(0.2),
            conv(width * 2, width * 4, 2),
            nn.LeakyReLU(0.2),
            conv(width * 4, width * 4, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width * 4, 1, 4, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image * 2 - 1)


def discriminator_loss(net: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    """Hinge loss of the discriminator, in one pass over both; `fake` is detached here."""
    of_real, of_fake = net(torch.cat([real, fake.detach()])).chunk(2)
    return F.relu(1 - of_real).mean() + F.relu(1 + of_fake).mean()


@dataclass(frozen=True)
class ImageLossWeights:
    """Weights of the terms; a zero switches the term off and saves its cost."""

    l1: float = 1.0
    lpips: float = 0.0
    dists: float = 0.0
    adversarial: float = 0.0
    difference: float = 0.0  # L1 between frame-to-frame differences, for clips
    grid: float = 0.0  # the pattern of four pixels in the error


def same_window(images: list[Tensor], size: int) -> list[Tensor]:
    """One random `size` x `size` window of all (N, 3, H, W); all of them where they are smaller."""
    y, x = (int(torch.randint(max(1, edge - size + 1), ())) for edge in images[0].shape[-2:])
    return [image[..., y : y + size, x : x + size] for image in images]


def grid(error: Tensor, size: int = 64) -> Tensor:
    """How strong a pattern of four pixels is in an error (N, 3, H, W): the deviation of the error's means, over every
    `size` x `size` window, at the 16 places of a cell of 4x4 pixels; the mean over windows and colours.

    A network that enlarges four times can draw such a pattern, and pleases VGG with it.
    """
    height, width = (edge // size * size for edge in error.shape[-2:])
    windows = error[..., :height, :width].unfold(2, size, size).unfold(3, size, size)
    places = windows.unflatten(-1, (-1, 4)).unflatten(-3, (-1, 4)).mean((-4, -2)).flatten(-2)
    return (places.var(-1, correction=0) + 1e-8).sqrt().mean()


class ImageLoss(nn.Module):
    """Weighted sum of the image terms. VGG, the dearest part, sees windows of up to 176 pixels.

    Windows of 64 were tried: a loss that fell by .007 on them moved whole pictures by .001 only. A window lies anywhere
    within `vgg_shift` pixels: VGG pools on a grid from its corner, and a network that always found it in the same place
    drew a pattern that pleased VGG there more than a pixel beside.
    """

    vgg_window, vgg_shift = 176, 16

    def __init__(self, perceptual: PerceptualLoss | None):
        super().__init__()
        self.perceptual = perceptual

    def forward(
        self,
        image: Tensor,
        target: Tensor,
        weights: ImageLossWeights,
        judge: Discriminator | None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Clips (B, N, 3, H, W) -> the loss and its unweighted terms. `judge` is used when its weight is not zero."""
        terms: dict[str, Tensor] = {"l1": F.l1_loss(image, target)}
        flat = image.flatten(0, 1)
        if self.perceptual is not None and (weights.lpips or weights.dists):
            size = min(self.vgg_window, min(flat.shape[-2:]) - self.vgg_shift)
            windows = same_window([flat, target.flatten(0, 1)], size)
            terms["lpips"], terms["dists"] = self.perceptual(*windows)
        if weights.difference and image.shape[1] > 1:
            terms["difference"] = F.l1_loss(image.diff(dim=1), target.diff(dim=1))
        if weights.grid:
            terms["grid"] = grid(flat - target.flatten(0, 1), min(64, flat.shape[-1]))
        if judge is not None and weights.adversarial:
            terms["adversarial"] = -judge(flat).mean()
        total = sum((getattr(weights, name) * value for name, value in terms.items()), torch.zeros(()))
        return total, {name: value.item() for name, value in terms.items()}
