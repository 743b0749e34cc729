"""The autoencoder, and its decoder with PCAM, STAM and CFW at every scale, eqs. (9)-(12).

diffusers' encoder and decoder hold the spatial layers, so Stable Diffusion's weights load by name. Frames come as
(B * N, 3, H, W) RGB in [0, 1]; latents have about unit variance.
"""

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import Decoder as SpatialDecoder
from diffusers.models.autoencoders.vae import Encoder as SpatialEncoder
from torch import Tensor, nn

from .cfw import CFW
from .config import PCAMConfig, VAEConfig
from .layers import sublayers, unrounded, zero_init
from .pcam import PCAM
from .stam import STAM

CFW_SCALES = (2, 4)  # CFW works at H/2 and H/4


class PatchTransform(nn.Module):
    """A linear code of f x f patches: each latent channel is one principal component, divided by its spread."""

    def __init__(self, latent: int, factor: int):
        super().__init__()
        self.encode = nn.Conv2d(3, latent, factor, stride=factor)
        self.decode = nn.ConvTranspose2d(latent, 3, factor, stride=factor)

    def code_of(self, image: Tensor) -> Tensor:
        """The code (B, c, H/f, W/f) of (B, 3, H, W), in the format of the weights under autocast too: it carries the
        picture itself, as in `Restorer.in_format`."""
        with unrounded(image.device):
            return self.encode(image.to(self.encode.weight.dtype))

    def image_of(self, code: Tensor) -> Tensor:
        """The inverse of `code_of`, but for what the code does not hold."""
        with unrounded(code.device):
            return self.decode(code.to(self.decode.weight.dtype))

    @torch.no_grad()
    def fit(self, patches: Tensor) -> None:
        """Set the code by PCA of `patches` (M, 3, f, f) in [0, 1], M well above 3 f^2; for images as x * 2 - 1."""
        shape = self.encode.weight.shape
        flat = (patches.double() * 2 - 1).flatten(1)
        mean = flat.mean(0)
        values, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
        spread = values.flip(0)[: shape[0]].clamp(min=1e-12).sqrt()
        axes = vectors.flip(1)[:, : shape[0]].T
        self.encode.weight.copy_((axes / spread[:, None]).view(shape))
        self.decode.weight.copy_((axes * spread[:, None]).view(shape))
        # A transposed convolution has one bias a colour, so the code is centred on the mean colour.
        colour = mean.view(3, -1).mean(1)
        centre = axes @ colour.repeat_interleave(flat.shape[1] // 3)
        assert self.encode.bias is not None and self.decode.bias is not None
        self.encode.bias.copy_(-centre / spread)
        self.decode.bias.copy_(colour)


class VAE(nn.Module):
    """Encoder, decoder and the modules the paper adds to the decoder."""

    idle: bool | None = None  # `adds_nothing`, once untrained.pass_over_identities has looked

    def __init__(self, config: VAEConfig, pcam: PCAMConfig):
        super().__init__()
        self.config = config
        channels, pixels = config.channels, 3 * config.stem**2
        scales = len(channels)
        shared = {
            "block_out_channels": channels,
            "layers_per_block": config.layers,
            "norm_num_groups": config.groups,
            "mid_block_add_attention": config.attention,
        }
        self.encoder = SpatialEncoder(pixels, config.latent, ("DownEncoderBlock2D",) * scales, **shared)
        self.decoder = SpatialDecoder(config.latent, pixels, ("UpDecoderBlock2D",) * scales, **shared)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1)
        # Scale k of the decoder is at f / 2^k; a block's first residual block may still have the coarser width.
        self.pcam = nn.ModuleList(PCAM(channels[-1 - max(0, k - 1)], pcam) for k in range(scales))
        self.stam = nn.ModuleList(STAM(c, config.stam_heads) for c in channels[::-1]) if config.stam else None
        self.cfw = self._cfw() if config.cfw else None
        self.patch = PatchTransform(config.latent, config.factor) if config.linear else None
        if config.linear:
            zero_init(self.decoder.conv_out)
            self._keep_feature_encoder()

    def _keep_feature_encoder(self) -> None:
        """The code is the latent; of the convolutional encoder only what makes the features that CFW reads stays."""
        encoder = self.encoder
        del encoder.mid_block, encoder.conv_norm_out, encoder.conv_out, self.quant_conv
        encoder.down_blocks = nn.ModuleList(
            block for i, block in enumerate(encoder.down_blocks) if self.config.stem * 2**i <= CFW_SCALES[-1]
        )
        encoder.down_blocks[-1].register_module("downsamplers", None)

    def _cfw(self) -> nn.ModuleDict:
        """CFW at H/4 and H/2, keyed by the decoder scale k."""
        last = len(self.config.channels) - 1
        at = {last - i: self.config.stem * 2**i for i in range(last + 1)}
        channels = {str(k): self.config.channels[last - k] for k, down in at.items() if down in CFW_SCALES}
        return nn.ModuleDict({k: CFW(width) for k, width in channels.items()})

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the convolutional networks; a linear code may have another."""
        return self.decoder.conv_in.weight.dtype

    def added_parameters(self) -> list[nn.Parameter]:
        """The parameters of PCAM, STAM and CFW: what the paper trains in the decoder."""
        modules = [self.pcam, *(m for m in (self.stam, self.cfw) if m is not None)]
        return [p for module in modules for p in module.parameters()]

    def takes_features(self, omega: float) -> bool:
        """Whether a decoder with CFW's share `omega` has a use for `features`."""
        at_work = self.cfw is not None and any(not module.idle for module in self.cfw.values())
        return at_work and omega > 0 and not self.adds_nothing

    def features(self, image: Tensor) -> list[Tensor]:
        """F_e of (B, 3, H, W), H and W multiples of f: one feature a scale, in the decoder's order (finest last)."""
        h = self.encoder.conv_in(F.pixel_unshuffle((image * 2 - 1).to(self.dtype), self.config.stem))
        features: list[Tensor] = []
        for block in self.encoder.down_blocks:
            for resnet in sublayers(block, "resnets"):
                h = resnet(h, None)
            features.insert(0, h)
            for down in sublayers(block, "downsamplers"):
                h = down(h)
        return features

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> the mode of the latent's distribution, (B, c, H/f, W/f)."""
        return self.encode_moments(image)[0]

    def encode_moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The latent's mode and log-variance, each (B, c, H/f, W/f); a linear code is certain (log-variance -30)."""
        if self.patch is not None:
            code = self.patch.code_of(image * 2 - 1)
            return code, torch.full_like(code, -30.0)
        h = self.encoder.mid_block(self.features(image)[0])
        h = self.encoder.conv_out(self.encoder.conv_act(self.encoder.conv_norm_out(h)))
        mean, log_variance = self.quant_conv(h).chunk(2, 1)
        return mean * self.config.scaling, log_variance.clamp(-30, 20)

    def decode_code(self, z: Tensor, x_hr: Tensor | None) -> Tensor:
        """The picture (B, 3, H, W) in [-1, 1] of a linear code, with what the code cannot hold of `x_hr` (ours)."""
        assert self.patch is not None
        x = self.patch.image_of(z)
        if x_hr is None:
            return x
        reference = x_hr * 2 - 1
        return x + reference - self.patch.image_of(self.patch.code_of(reference))

    @property
    def adds_nothing(self) -> bool:
        """Whether a linear code's own decoder adds exactly zero, as its last layer is. Training runs it still."""
        if self.idle is not None:
            return self.idle  # a card would have to wait for a look at the weights
        return self.patch is not None and not any(p.any() for p in self.decoder.conv_out.parameters())

    def decode(
        self, z: Tensor, frames: int, f_e: list[Tensor] | None = None, omega: float = 0.0, x_hr: Tensor | None = None
    ) -> Tensor:
        """Latents (B * N, c, H/f, W/f) of clips of N = `frames` -> RGB (B * N, 3, H, W), not clamped.

        `f_e` with `omega` > 0 adds CFW's residual; omega = 0 is the decoder without CFW. With a linear code, `x_hr`
        adds what the code cannot hold of it (ours).
        """
        z = z / self.config.scaling
        if self.patch is None:
            return (self._convolutional(z, frames, f_e, omega).float() + 1) / 2  # half precision has 7 bits above 1
        x = self.decode_code(z, x_hr)
        if torch.is_grad_enabled() or not self.adds_nothing:
            x = x + self._convolutional(z, frames, f_e, omega).to(x.dtype)
        return (x + 1) / 2

    def _convolutional(self, z: Tensor, frames: int, f_e: list[Tensor] | None, omega: float) -> Tensor:
        """What the decoder's convolutions make of latents, (B * N, 3, H, W)."""
        h = self.decoder.mid_block(self.decoder.conv_in(self.post_quant_conv(z.to(self.dtype))), None)
        for k, block in enumerate(self.decoder.up_blocks):
            h = self._scale(k, block, h, frames, f_e, omega)
        h = self.decoder.conv_out(self.decoder.conv_act(self.decoder.conv_norm_out(h)))
        return F.pixel_shuffle(h, self.config.stem)

    def _scale(
        self, k: int, block: nn.Module, h: Tensor, frames: int, f_e: list[Tensor] | None, omega: float
    ) -> Tensor:
        """One scale: PCAM, Res (eq. 9), STAM (eqs. 10, 11), Res -> F_d, + omega CFW(F_e, F_d), Up (eq. 12)."""
        first, *rest = sublayers(block, "resnets")
        h = first(self.pcam[k](h), None)
        if self.stam is not None:
            h = self.stam[k](h, frames)
        for resnet in rest:
            h = resnet(h, None)
        if self.cfw is not None and str(k) in self.cfw and f_e is not None and omega > 0:
            h = h + omega * self.cfw[str(k)](f_e[k - len(self.decoder.up_blocks)], h)
        for up in sublayers(block, "upsamplers"):
            h = up(h)
        return h
