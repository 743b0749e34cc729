"""The condition encoder of eq. (6): a trainable copy of the UNet's encoder behind zero convolutions."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from .layers import sublayers, zero_init


def encode(unet: UNet2DConditionModel, x: Tensor, emb: Tensor, context: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """The encoder half of a UNet: x (N, c, H, W), time embedding emb (N, D) -> skips and the middle feature."""
    h = unet.conv_in(x)
    skips = [h]
    for block in unet.down_blocks:
        attends = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
        h, outputs = block(hidden_states=h, temb=emb, **attends)
        skips.extend(outputs)
    attends = {"encoder_hidden_states": context} if getattr(unet.mid_block, "has_cross_attention", False) else {}
    assert unet.mid_block is not None
    return skips, unet.mid_block(h, emb, **attends)


def time_embedding(unet: UNet2DConditionModel, t: Tensor, like: Tensor) -> Tensor:
    """t (N,) -> (N, D) in the dtype of `like`."""
    return unet.time_embedding(unet.time_proj(t).to(like.dtype))


class ConditionEncoder(nn.Module):
    """C'_HR: encodes Cat(Z_t, C_HR); every output passes a 1x1 convolution that starts at zero."""

    def __init__(self, unet: UNet2DConditionModel):
        """`unet`: a fresh UNet with 2c input channels; its decoder half is dropped."""
        super().__init__()
        unet.up_blocks = nn.ModuleList()
        del unet.conv_norm_out, unet.conv_act, unet.conv_out
        self.encoder = unet
        widths = [unet.conv_in.out_channels]
        for block in unet.down_blocks:
            outputs = sublayers(block, "resnets") + sublayers(block, "downsamplers")
            widths += [getattr(layer, "out_channels") for layer in outputs]  # noqa: B009
        self.zero_skips = nn.ModuleList(zero_conv(w) for w in widths)
        self.zero_mid = zero_conv(widths[-1])

    @property
    def closed(self) -> bool:
        """Whether every zero convolution is still zero, so that the condition does not reach the UNet."""
        return not any(p.any() for p in (*self.zero_skips.parameters(), *self.zero_mid.parameters()))

    @torch.no_grad()
    def copy_encoder(self, unet: UNet2DConditionModel) -> None:
        """Take over the UNet's encoder weights; the condition's input channels start at zero."""
        own, theirs = self.encoder.state_dict(), unet.state_dict()
        copied = {k: v for k, v in theirs.items() if k in own and k != "conv_in.weight"}
        stem = torch.zeros_like(own["conv_in.weight"])
        stem[:, : theirs["conv_in.weight"].shape[1]] = theirs["conv_in.weight"]
        self.encoder.load_state_dict({**copied, "conv_in.weight": stem})

    def forward(self, z_t: Tensor, c_hr: Tensor, t: Tensor, context: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Z_t, C_HR (N, c, H, W) -> residuals for the UNet's skips and its middle."""
        emb = time_embedding(self.encoder, t, z_t)
        skips, middle = encode(self.encoder, torch.cat([z_t, c_hr], 1), emb, context)
        skips = [zero(skip) for zero, skip in zip(self.zero_skips, skips, strict=True)]
        return skips, self.zero_mid(middle)


def zero_conv(channels: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero."""
    conv = nn.Conv2d(channels, channels, 1)
    zero_init(conv)
    return conv
