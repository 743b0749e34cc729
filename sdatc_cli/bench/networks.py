"""LPIPS, DISTS and tLP of the frames of one clip: the ground truth's features are computed once for all methods."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .perceptual import DISTS, LPIPS, VGG_STAGES, Trunk, dists_distance, l2_pool, lpips_distance, max_pool

POOLS = {"lpips-vgg": max_pool, "dists": l2_pool}


@functools.cache
def network(name: str, device: str) -> LPIPS | DISTS:
    """The frozen network behind a metric: "lpips-vgg", "lpips-alex" or "dists"."""
    module = DISTS() if name == "dists" else LPIPS(name.removeprefix("lpips-"))
    return module.eval().to(device)


def to_tensor(image: np.ndarray, device: str) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1] of an (H, W, 3) uint8 image."""
    return torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].float() / 255


def vgg_features(image: Tensor, names: Sequence[str], device: str) -> dict[str, list[Tensor]]:
    """Features of an image (1, 3, H, W) for LPIPS-VGG and DISTS, whose VGG16s differ only from the first pooling on."""
    net = network(names[0], device)
    mean, spread = image.new_tensor([0.485, 0.456, 0.406]), image.new_tensor([0.229, 0.224, 0.225])
    first = (image - mean.view(1, 3, 1, 1)) / spread.view(1, 3, 1, 1)
    for i in range(VGG_STAGES[0]):
        first = net.trunk.conv(i, first)
    found = {}
    for name in names:
        features = [first, *_later_stages(net.trunk, first, POOLS[name])]
        found[name] = [image, *features] if name == "dists" else features
    return found


def _later_stages(trunk: Trunk, x: Tensor, pool: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    i = VGG_STAGES[0]
    for convolutions in VGG_STAGES[1:]:
        x = pool(x)
        for _ in range(convolutions):
            x, i = trunk.conv(i, x), i + 1
        yield x


def distance(name: str, features: list[Tensor], reference: list[Tensor], device: str) -> float:
    """LPIPS or DISTS between two images whose features are known."""
    net = network(name, device)
    if isinstance(net, DISTS):
        return float(dists_distance(features, reference, net.alpha, net.beta))
    return float(lpips_distance(features, reference, list(net.heads)))


class PerceptualScores:
    """Distances of several versions of a clip to its ground truth, given one frame of each at a time."""

    def __init__(self, metrics: Sequence[str], device: str):
        self.metrics, self.device = metrics, device
        self.previous: dict[int, tuple[int, list[Tensor]]] = {}  # video -> (frame index, AlexNet's features)

    @torch.inference_mode()
    def frame(
        self, index: int, truth: np.ndarray, images: Sequence[np.ndarray | None], skip: Sequence[str] = ()
    ) -> list[dict[str, float]]:
        """Scores of frame `index` of each version (None: it has no such frame), for all metrics but those in `skip`.

        Frames must come in order: tLP compares each with the one before it, where that is `index` - 1.
        """
        scores: list[dict[str, float]] = [{} for _ in images]
        wanted = [name for name in self.metrics if name not in skip]
        if names := [name for name in POOLS if name in wanted]:
            reference = vgg_features(to_tensor(truth, self.device), names, self.device)
            for image, found in zip(images, scores, strict=True):
                if image is None:
                    continue
                features = vgg_features(to_tensor(image, self.device), names, self.device)
                found |= {name: distance(name, features[name], reference[name], self.device) for name in names}
        if "lpips-alex" in wanted or "tlp" in wanted:
            self._alex(index, truth, images, scores, wanted)
        return scores

    def _alex(
        self, index: int, truth: np.ndarray, images: Sequence, scores: list[dict[str, float]], wanted: Sequence[str]
    ) -> None:
        net = network("lpips-alex", self.device)
        reference = net.features(to_tensor(truth, self.device))
        true_step = self._step(-1, index, reference)
        for video, (image, found) in enumerate(zip(images, scores, strict=True)):
            if image is None:
                continue
            features = net.features(to_tensor(image, self.device))
            if "lpips-alex" in wanted:
                found["lpips-alex"] = distance("lpips-alex", features, reference, self.device)
            step = self._step(video, index, features)
            if "tlp" in wanted and step is not None and true_step is not None:
                found["tlp"] = 100 * abs(step - true_step)

    def _step(self, video: int, index: int, features: list[Tensor]) -> float | None:
        """LPIPS from the previous frame of the same video, or None where that was not the one before."""
        before = self.previous.get(video)
        self.previous[video] = (index, features)
        if before is None or before[0] != index - 1:
            return None
        return distance("lpips-alex", features, before[1], self.device)
