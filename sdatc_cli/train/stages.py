"""The stages of training: what each one trains, and its loss.

Every stage holds the whole model and one `forward` that the loop may wrap (several processes, mixed precision).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdatc_models.restorer import RestoreOptions, Restorer

from .batches import Batch
from .loop import StageLoss
from .losses import Discriminator, ImageLoss
from .recipe import Recipe


class StageNet(nn.Module):
    """A model of which a stage trains some parts; the rest is frozen."""

    def __init__(self, restorer: Restorer, trained: list[nn.Parameter]):
        super().__init__()
        self.restorer = restorer.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


class AutoencoderNet(StageNet):
    """Stage "vae": the autoencoder alone, on clean pictures."""

    def __init__(self, restorer: Restorer):
        vae = restorer.vae
        added = {id(p) for p in vae.added_parameters()}
        features = {id(p) for p in vae.encoder.parameters()} if vae.config.linear else set()
        super().__init__(restorer, [p for p in vae.parameters() if id(p) not in added and id(p) not in features])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> the reconstruction from a sampled latent, and the KL divergence per latent value."""
        vae = self.restorer.vae
        mean, log_variance = vae.encode_moments(image)
        if vae.config.linear:
            return vae.decode(mean, 1), mean.new_zeros(())
        mean = mean / vae.config.scaling
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return vae.decode(z * vae.config.scaling, 1), kl


class DCMNet(StageNet):
    """Stage "dcm": the distortion control module, on single frames."""

    def __init__(self, restorer: Restorer):
        super().__init__(restorer, list(restorer.dcm.parameters()))

    def forward(self, lq: Tensor, quantiser: Tensor) -> Tensor:
        return self.restorer.dcm(lq, quantiser, mirror=False)


class DiffusionNet(StageNet):
    """Stage "diffusion": condition encoder, UNet and PCAM.

    A pretrained backbone ("epsilon", "v") keeps its encoder frozen, and DCM is fine-tuned end to end, as in the paper.
    A residual one is trained whole, behind a DCM that stays as it is, since tuning both in small batches made lite
    worse (its card has the run). It is judged by the picture of its x_0 through the linear code alone, which costs next
    to nothing.
    """

    def __init__(self, restorer: Restorer):
        unet = restorer.unet
        residual = restorer.config.unet.prediction == "residual"
        parts: list[nn.Module] = [unet.control, unet.pcam]
        parts += [unet.backbone] if residual else [unet.backbone.up_blocks, restorer.dcm]
        super().__init__(restorer, [p for part in parts for p in part.parameters()])

    def forward(self, lq: Tensor, hr: Tensor, quantiser: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """LQ and HR frames (B, 3, ...), quantisers (B,) -> raw output, its target, the decoded x_0 estimate, x_HR."""
        restorer, schedule = self.restorer, self.restorer.schedule
        x_hr = restorer.dcm(lq, quantiser, mirror=restorer.config.unet.prediction == "residual")
        c_hr = restorer.vae.encode(x_hr)
        z_0 = restorer.vae.encode(hr)
        t = torch.randint(schedule.config.start, (lq.shape[0],), device=lq.device)
        noise = torch.randn_like(z_0)
        z_t = schedule.q_sample(z_0, t, noise) + schedule.offset(z_0, c_hr.detach(), t)
        output = restorer.unet(z_t, c_hr, t)
        if restorer.config.unet.prediction == "epsilon":
            return output, noise, hr, x_hr
        if restorer.config.unet.prediction == "v":
            return output, schedule.velocity(z_0, t, noise), hr, x_hr
        x_0 = c_hr + output
        return x_0, z_0, (restorer.vae.decode_code(x_0, x_hr) + 1) / 2, x_hr


class DecoderNet(StageNet):
    """Stage "decoder": PCAM, STAM and CFW of the decoder (and a linear code's own decoder and feature encoder), on
    clips whose latents are sampled by the diffusion as it stands."""

    def __init__(self, restorer: Restorer, sampling_steps: int = 3):
        vae = restorer.vae
        trained = vae.added_parameters()
        if vae.config.linear:
            trained += [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
            trained += [p for m in (vae.encoder.conv_in, vae.encoder.down_blocks) for p in m.parameters()]
        super().__init__(restorer, trained)
        self.options = RestoreOptions(steps=sampling_steps, solver="dpmpp", guidance=0.0)

    @torch.no_grad()
    def inputs(self, lq: Tensor, quantiser: Tensor) -> tuple[Tensor, Tensor]:
        """A clip (N, 3, h, w) and its quantiser, a scalar -> a sampled Z_0 and x_HR."""
        restorer = self.restorer
        x_hr = restorer.dcm(lq, quantiser.expand(len(lq)))
        seed = int(torch.randint(2**31, ()))
        options = replace(self.options, seed=seed)
        return restorer.sample(restorer.encode(x_hr, None), x_hr, range(lq.shape[0]), options), x_hr

    def forward(self, lq: Tensor, quantiser: Tensor) -> Tensor:
        """Clips (B, N, 3, h, w) and quantisers (B,) -> (B, N, 3, 4h, 4w)."""
        frames = lq.shape[1]
        pairs = [self.inputs(*clip) for clip in zip(lq, quantiser, strict=True)]
        z_0, x_hr = (torch.cat(items) for items in zip(*pairs, strict=True))
        f_e = self.restorer.vae.features(x_hr)
        omega = RestoreOptions.fidelity
        return self.restorer.vae.decode(z_0, frames, f_e, omega, x_hr).unflatten(0, lq.shape[:2])


class Stage:
    """One of the four stages: its network and how its loss is computed."""

    kl_weight = 1e-6
    dcm_weight = 0.25  # keeps x_HR a picture of its own while DCM is tuned through the diffusion

    def __init__(self, net: StageNet, recipe: Recipe, image_loss: ImageLoss):
        self.net, self.recipe, self.image_loss = net, recipe, image_loss

    def loss(self, net: nn.Module, batch: Batch, fraction: float, judge: Discriminator | None) -> StageLoss:
        """`net` is `self.net`, perhaps wrapped; `fraction` of the run that is done."""
        weights = self.recipe.weights
        if fraction < self.recipe.perceptual_from:
            weights = replace(weights, lpips=0.0, dists=0.0)
        lq, hr = batch.lq.flatten(0, 1), batch.hr.flatten(0, 1)
        quantiser = batch.quantiser.repeat_interleave(batch.lq.shape[1])
        extra: dict[str, Tensor] = {}
        if isinstance(self.net, AutoencoderNet):
            image, kl = net(hr)
            extra["kl"] = self.kl_weight * kl
        elif isinstance(self.net, DCMNet):
            image = net(lq, quantiser)
        elif isinstance(self.net, DecoderNet):
            image = net(batch.lq, batch.quantiser).flatten(0, 1)
        else:
            output, target, image, x_hr = net(lq, hr, quantiser)
            extra["mse"] = self.recipe.mse * F.mse_loss(output, target)
            if x_hr.requires_grad:
                extra["dcm"] = self.dcm_weight * F.l1_loss(x_hr, hr)
        image = image.unflatten(0, batch.hr.shape[:2])
        target = batch.hr if batch.taught is None else batch.taught
        total, terms = self.image_loss(image, target, weights, judge)
        total = total + sum(extra.values(), torch.zeros((), device=total.device))
        terms |= {name: value.item() for name, value in extra.items()}
        return StageLoss(total, terms, (image.flatten(0, 1), hr))


NETS = {"vae": AutoencoderNet, "dcm": DCMNet, "diffusion": DiffusionNet, "decoder": DecoderNet}
