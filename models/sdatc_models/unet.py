"""The denoiser: diffusers' UNet with the condition's residuals in its skips (eq. 6) and PCAM after each scale."""

from typing import Any, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from .config import PCAMConfig, UNetConfig
from .control import ConditionEncoder, encode, time_embedding
from .layers import sublayers, zero_init
from .pcam import PCAM
from .recordings import Recordings
from .schedule import Schedule


def build_backbone(config: UNetConfig, inputs: int, outputs: int) -> UNet2DConditionModel:
    """diffusers' UNet of a config: Stable Diffusion's layout with a context, plain convolution blocks without."""
    scales = len(config.channels)
    attends = config.context is not None
    down, up = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D") if attends else ("DownBlock2D", "UpBlock2D")
    return UNet2DConditionModel(
        in_channels=inputs,
        out_channels=outputs,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
        down_block_types=(*(down,) * (scales - 1), "DownBlock2D"),
        up_block_types=("UpBlock2D", *(up,) * (scales - 1)),
        mid_block_type="UNetMidBlock2DCrossAttn" if attends else "UNetMidBlock2D",
        cross_attention_dim=config.context or 1,
        attention_head_dim=cast(Any, config.heads or 8),  # typed as a tuple of one, but it is one a scale
        use_linear_projection=True,
    )


class UNet(nn.Module):
    """Predicts x_0 from Z_t and C_HR."""

    def __init__(self, config: UNetConfig, pcam: PCAMConfig, latent: int):
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config, latent, latent)
        self.control = ConditionEncoder(build_backbone(config, 2 * latent, latent))
        self.control.copy_encoder(self.backbone)
        self.pcam = nn.ModuleList(PCAM(c, pcam) for c in config.channels[::-1])
        # The prompt is always empty, so the text encoder's output is a constant; it is stored with the weights.
        self.register_buffer("context", torch.zeros(1, 77, config.context) if config.context else None)
        self.context: Tensor | None
        self.recordings = Recordings()
        if config.prediction == "residual":
            zero_init(self.backbone.conv_out)

    def forward(self, z_t: Tensor, c_hr: Tensor, t: Tensor) -> Tensor:
        """Z_t, C_HR (N, c, H, W), t (N,) indices -> the network's raw output, (N, c, H, W)."""
        unet = self.backbone
        context = self.context.expand(z_t.shape[0], -1, -1).to(z_t.dtype) if self.context is not None else None
        emb = time_embedding(unet, t, z_t)
        skips, h = encode(unet, z_t, emb, context)
        extra_skips, extra_middle = self.control(z_t, c_hr, t, context)
        skips = [skip + extra for skip, extra in zip(skips, extra_skips, strict=True)]
        h = h + extra_middle
        for block, pcam in zip(unet.up_blocks, self.pcam, strict=True):
            count = len(sublayers(block, "resnets"))
            skips, taken = skips[:-count], tuple(skips[-count:])
            attends = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
            h = pcam(block(hidden_states=h, temb=emb, res_hidden_states_tuple=taken, **attends))
        assert unet.conv_norm_out is not None and unet.conv_act is not None
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))

    def predict_x_0(self, z_t: Tensor, c_hr: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """The estimate of x_0 in float32: C_HR plus the output ("residual"), or solved from the noise ("epsilon") or
        from v."""
        dtype = self.backbone.conv_in.weight.dtype
        output = self.recordings.run(self, z_t.to(dtype), c_hr.to(dtype), t).float()
        if self.config.prediction == "residual":
            return c_hr.float() + output
        if self.config.prediction == "v":
            return schedule.x_0_from_velocity(z_t.float(), t, output)
        return schedule.x_0_from_epsilon(z_t.float(), t, output)
