"""LPIPS (Zhang et al., 2018) and DISTS (Ding et al., 2020) as differentiable modules in plain torch.

Images are (N, 3, H, W) RGB in [0, 1]; every module returns one distance an image, (N,).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .perceptual_weights import dists_weights, lpips_weights

VGG_STAGES = (2, 2, 3, 3, 3)  # convolutions before each tapped ReLU: relu1_2, 2_2, 3_3, 4_3, 5_3
DISTS_CHANNELS = (3, 64, 128, 256, 512, 512)


class Trunk(nn.Module):
    """Frozen convolutions of an ImageNet classifier."""

    def __init__(self, convs: list[tuple[Tensor, Tensor]]):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(w, requires_grad=False) for w, _ in convs)
        self.biases = nn.ParameterList(nn.Parameter(b, requires_grad=False) for _, b in convs)

    def conv(self, i: int, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return F.relu(F.conv2d(x, self.weights[i], self.biases[i], stride, padding))


def vgg_features(trunk: Trunk, x: Tensor, pool: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The five tapped features of VGG16 for a normalised image."""
    features, i = [], 0
    for stage, convs in enumerate(VGG_STAGES):
        if stage:
            x = pool(x)
        for _ in range(convs):
            x, i = trunk.conv(i, x), i + 1
        features.append(x)
    return features


def alex_features(trunk: Trunk, x: Tensor) -> list[Tensor]:
    """The five ReLU outputs of AlexNet for a normalised image."""
    features = [trunk.conv(0, x, stride=4, padding=2)]
    features.append(trunk.conv(1, F.max_pool2d(features[-1], 3, 2), padding=2))
    features.append(trunk.conv(2, F.max_pool2d(features[-1], 3, 2)))
    features.append(trunk.conv(3, features[-1]))
    features.append(trunk.conv(4, features[-1]))
    return features


def max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2)


def l2_pool(x: Tensor) -> Tensor:
    """DISTS's pooling: the root of Hann-weighted squares, stride 2."""
    hann = torch.tensor([0.5, 1.0, 0.5], dtype=x.dtype, device=x.device)
    kernel = torch.outer(hann, hann) / hann.sum() ** 2
    channels = x.shape[1]
    squares = F.conv2d(x * x, kernel.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels)
    return (squares + 1e-12).sqrt()


def unit(features: Tensor) -> Tensor:
    """Divides each pixel's feature vector by its length."""
    return features / (features.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)


def lpips_distance(features: list[Tensor], reference: list[Tensor], heads: list[Tensor]) -> Tensor:
    """Sum over layers of the spatial mean of the weighted squared difference of unit features, (N,)."""
    layers = zip(features, reference, heads, strict=True)
    return sum((F.conv2d((unit(a) - unit(b)) ** 2, h).mean((1, 2, 3)) for a, b, h in layers), torch.zeros(()))


def structure_texture(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """DISTS's per-channel texture similarity (of means) and structure similarity (of covariances), each (N, C)."""
    mean_a, mean_b = a.mean((2, 3)), b.mean((2, 3))
    texture = (2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6)
    centred_a, centred_b = a - mean_a[..., None, None], b - mean_b[..., None, None]
    covariance = (centred_a * centred_b).mean((2, 3))
    variances = centred_a.pow(2).mean((2, 3)) + centred_b.pow(2).mean((2, 3))
    return texture, (2 * covariance + 1e-6) / (variances + 1e-6)


def dists_distance(features: list[Tensor], reference: list[Tensor], alpha: Tensor, beta: Tensor) -> Tensor:
    """One minus the weighted similarities over the image itself and the five features, (N,)."""
    similarity, start = torch.zeros(()), 0
    for a, b in zip(features, reference, strict=True):
        texture, structure = structure_texture(a, b)
        channels = slice(start, start := start + a.shape[1])
        similarity = similarity + (alpha[channels] * texture + beta[channels] * structure).sum(1)
    return 1 - similarity


class LPIPS(nn.Module):
    """LPIPS v0.1 with its linear heads; `net` is "vgg" or "alex". ModelError when the weights are not installed."""

    def __init__(self, net: str):
        super().__init__()
        convs, heads = lpips_weights(net)
        self.net, self.trunk = net, Trunk(convs)
        self.heads = nn.ParameterList(nn.Parameter(h, requires_grad=False) for h in heads)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.shift: Tensor
        self.spread: Tensor

    def features(self, image: Tensor) -> list[Tensor]:
        x = (image * 2 - 1 - self.shift) / self.spread
        return vgg_features(self.trunk, x, max_pool) if self.net == "vgg" else alex_features(self.trunk, x)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return lpips_distance(self.features(image), self.features(reference), list(self.heads))


class DISTS(nn.Module):
    """DISTS over VGG16 with l2 pooling. ModelError when the weights are not installed."""

    def __init__(self):
        super().__init__()
        self.trunk = Trunk(lpips_weights("vgg")[0])
        alpha, beta = dists_weights()
        self.register_buffer("alpha", alpha)
        self.register_buffer("beta", beta)
        self.register_buffer("shift", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.alpha: Tensor
        self.beta: Tensor
        self.shift: Tensor
        self.spread: Tensor

    def features(self, image: Tensor) -> list[Tensor]:
        return [image, *vgg_features(self.trunk, (image - self.shift) / self.spread, l2_pool)]

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return dists_distance(self.features(image), self.features(reference), self.alpha, self.beta)
