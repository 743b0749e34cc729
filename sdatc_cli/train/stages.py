"""The stages of training: what each one trains, and its loss."""

from dataclasses import replace

from torch import Tensor, nn

from sdatc_models.dcm import DCM

from .batches import Batch
from .loop import StageLoss
from .losses import Discriminator, ImageLoss
from .recipe import Recipe


class DCMStage:
    """Trains the distortion control module on single frames: L1, then L1 + LPIPS + DISTS, then adversarial too."""

    def __init__(self, dcm: DCM, recipe: Recipe, image_loss: ImageLoss):
        self.net, self.recipe, self.image_loss = dcm, recipe, image_loss

    def loss(self, net: nn.Module, batch: Batch, fraction: float, judge: Discriminator | None) -> StageLoss:
        weights = self.recipe.weights
        if fraction < self.recipe.perceptual_from:
            weights = replace(weights, lpips=0.0, dists=0.0)
        x_hr = net(batch.lq.flatten(0, 1)).unflatten(0, batch.lq.shape[:2])
        total, terms = self.image_loss(x_hr, batch.hr, weights, judge)
        return StageLoss(total, terms, (x_hr.flatten(0, 1), batch.hr.flatten(0, 1)))

    def picture(self, net: nn.Module, batch: Batch) -> Tensor:
        """(B, 3, H, W) restored pictures for the run's sample sheet."""
        return net(batch.lq[:, 0])
