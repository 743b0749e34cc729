"""The whole of SDATC for one clip: DCM -> condition -> guided diffusion -> decoder -> fusion -> detail -> colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from .color import correct, enlarge
from .config import ModelConfig
from .dcm import DCM
from .detail import amplify, kept
from .flow import ClipFlow, clip_flow
from .fusion import fuse
from .guidance import guided
from .motion import Motion, Searches, clip_motion
from .noise import frame_noise
from .padding import pad_to_multiple
from .recent import Recent
from .schedule import Schedule
from .sending import sent
from .tiling import ALIGN, tiled
from .unet import UNet
from .vae import VAE

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

FILLS_A_CARD = 40_000  # LR pixels at once (a guess); from there on a card gains more by sharing frames than by batches


@dataclass(frozen=True)
class RestoreOptions:
    """How to restore. `guidance` None takes the model's tuned s; `tile` is the edge of a tile in LR pixels.

    `detail` scales what the networks add to a bicubic enlargement: 0 leaves none of it, above 1 is sharper than made.
    `mirror`: whether a DCM that means over mirror images does; without, it takes half the time.
    `quantiser`: how coarsely the codec rounded the video, on H.264's scale from 0 to 51; None when it is not known.
    """

    steps: int = 50
    solver: Literal["ddpm", "dpmpp"] = "ddpm"
    mirror: bool = True
    fidelity: float = 0.75
    detail: float = 1.0
    guidance: float | None = None
    flow: Literal["dis", "raft", "none"] = "dis"
    color: Literal["adain", "wavelet", "none"] = "adain"
    seed: int = 0
    tile: int | None = None
    quantiser: float | None = None


class Restorer(nn.Module):
    """All networks of one model. `restore` takes a clip of 1 to `clip_length` frames."""

    scale = 4
    clip_length = 5

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.dcm = DCM(config.dcm)
        self.vae = VAE(config.vae, config.pcam)
        self.unet = UNet(config.unet, config.pcam, config.vae.latent)
        self.schedule = Schedule(config.schedule)
        convert_conv2d_weight_memory_format(self, torch.channels_last)  # the faster layout, on CPUs as on GPUs
        self._recent: Recent[tuple[Tensor, Tensor]] = Recent(self.clip_length)
        self._motion = Motion(self.clip_length)

    def in_format(self, dtype: torch.dtype) -> "Restorer":
        """The networks in `dtype`. A linear code stays in float32: it carries the picture itself, which half precision
        would round to a few hundred levels."""
        parts = [part for part in self.vae.children() if part is not self.vae.patch]
        for part in (self.dcm, self.unet, *parts):
            part.to(dtype)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    @torch.inference_mode()
    def restore(self, clip: Tensor, frames: Sequence[int], options: RestoreOptions) -> Tensor:
        """A clip (N, 3, h, w), float32 RGB in [0, 1], N from 1 to 5, h, w >= 16 -> (N, 3, 4h, 4w), the same range.

        `frames`: the N absolute frame indices, which key the noise. Raises ValueError for other shapes.
        """
        self._check(clip, frames)
        height, width = clip.shape[-2:]
        x_lq = pad_to_multiple(clip, max(ALIGN, self.config.multiple // self.scale))
        fusing = self.config.fusion and len(clip) > 1 and options.flow != "none"
        searches = self._motion.begin(x_lq, frames, options.flow, self.device) if fusing else []
        try:
            x_hr, z_0 = self._generate(x_lq, frames, options)
            image = self._fused(self.decode(z_0, x_hr, options), searches, options)
        except Exception:
            self.unet.recordings.clear()  # a next try, with smaller tiles, shall have their memory
            self.forget()  # and that of frames made with the larger ones, which it cannot use
            self._motion = Motion(self.clip_length)  # and make searches that failed again
            raise
        image = image[..., : height * self.scale, : width * self.scale]
        clip = sent(clip, self.device)
        plain = enlarge(clip, (height * self.scale, width * self.scale))
        image = plain + options.detail * amplify(image - plain, self.config.detail, self._told(clip, options))
        image = correct(image, clip, options.color)
        # What is infinite becomes NaN, as what no number is: clamped, it would pass for white or black.
        return image.clamp(0, 1).where(image.isfinite(), math.nan)

    def forget(self) -> None:
        """Drops what was made of the last frames, which `restore` would use again. For when weights change."""
        self._recent = Recent(self.clip_length)

    def _told(self, clip: Tensor, options: RestoreOptions) -> Tensor:
        """The quantiser of each frame of a clip, (N,); NaN where it is not known."""
        return clip.new_full(clip.shape[:1], math.nan if options.quantiser is None else options.quantiser)

    def _check(self, clip: Tensor, frames: Sequence[int]) -> None:
        if clip.ndim != 4 or clip.shape[1] != 3 or not 1 <= clip.shape[0] <= self.clip_length:
            raise ValueError(f"a clip is (1 to {self.clip_length}, 3, h, w), not {tuple(clip.shape)}")
        if min(clip.shape[-2:]) < 16:
            raise ValueError(f"frames of {clip.shape[-1]}x{clip.shape[-2]} are too small; the least is 16x16")
        if len(frames) != clip.shape[0]:
            raise ValueError(f"{len(frames)} frame indices for {clip.shape[0]} frames")

    def _generate(self, x_lq: Tensor, frames: Sequence[int], options: RestoreOptions) -> tuple[Tensor, Tensor]:
        """x_HR and a sampled Z_0 of x_LQ.

        Without guidance no frame's sample depends on another's. Each is then made by itself, and once for all the
        clips that share it; alone, so that its bits do not depend on which frames a clip still lacks. Not so small
        frames or tiles on a card, which are too little work for it: there a clip goes through whole.
        """

        def make(x_lq: Tensor, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
            x_hr = self._enlarge(sent(x_lq, self.device), options)
            c_hr = self.encode(x_hr, options.tile)
            share = kept(self.config.detail, self._told(x_hr, options))[:, None, None, None]
            return x_hr, torch.lerp(c_hr.float(), self.sample(c_hr, x_hr, frames, options), share)

        at_once = math.prod(min(edge, options.tile or edge) for edge in x_lq.shape[-2:])
        if self._guidance(options) or (self.device.type == "cuda" and at_once < FILLS_A_CARD):
            return make(x_lq, frames)
        made = [
            self._recent.get((frame, options), image, lambda image, frame=frame: make(image, [frame]))
            for frame, image in zip(frames, x_lq.split(1), strict=True)
        ]
        x_hr, z_0 = (torch.cat(parts) for parts in zip(*made, strict=True))
        return x_hr, z_0

    def _enlarge(self, x_lq: Tensor, options: RestoreOptions) -> Tensor:
        """x_HR (N, 3, 4h, 4w) of x_LQ."""

        def run(x_lq: Tensor) -> Tensor:
            return self.dcm(x_lq, self._told(x_lq, options), options.mirror)

        return tiled(run, [x_lq], [1], self.scale, options.tile)

    def _guidance(self, options: RestoreOptions) -> float:
        return self.config.guidance if options.guidance is None else options.guidance

    @property
    def _latent_scale(self) -> float:
        """Latent positions per LR pixel."""
        return self.scale / self.config.vae.factor

    def encode(self, x_hr: Tensor, tile: int | None) -> Tensor:
        """C_HR (N, c, H/f, W/f) of x_HR (N, 3, H, W)."""
        return tiled(self.vae.encode, [x_hr], [self.scale], self._latent_scale, tile)

    def sample(self, c_hr: Tensor, x_hr: Tensor, frames: Sequence[int], options: RestoreOptions) -> Tensor:
        """Reverse diffusion from q(Z_start | C_HR) to Z_0 (N, c, H/f, W/f), float32, guided by the motion of x_HR."""
        guidance = self._guidance(options)
        flow = self._flow(x_hr, c_hr, options) if guidance else None
        timesteps = self.schedule.timesteps(options.steps)

        def noise(step: int) -> Tensor:
            shape = (c_hr.shape[1], c_hr.shape[2], c_hr.shape[3])
            return frame_noise(options.seed, frames, step, shape, c_hr.device)

        def x_0_at(z: Tensor, t: int) -> Tensor:
            def predict(z_tile: Tensor, c_tile: Tensor) -> Tensor:
                return self.unet.predict_x_0(z_tile, c_tile, self._times(t, z_tile), self.schedule)

            scale = self._latent_scale
            return tiled(predict, [z, c_hr], [scale, scale], scale, options.tile)

        c_hr = c_hr.float()
        z = self.schedule.q_sample(c_hr, self._times(timesteps[0], c_hr), noise(0))
        solver = self._dpm_solver(timesteps) if options.solver == "dpmpp" else None
        for i, t in enumerate(timesteps):
            following = timesteps[i + 1] if i + 1 < len(timesteps) else None
            x_0 = x_0_at(z, t)
            w = z - self.schedule.offset(x_0, c_hr, self._times(t, z))
            mean, variance = self.schedule.posterior(w, x_0, t, following)
            if solver is not None:
                z = solver.step(x_0, solver.timesteps[i], w, return_dict=False)[0]
            else:
                z = mean + variance**0.5 * noise(i + 1) if following is not None else mean
            if following is not None:
                z = z + self.schedule.offset(x_0, c_hr, self._times(following, z))
            z = guided(z, flow, guidance, variance)
        return z

    def _times(self, t: int, like: Tensor) -> Tensor:
        return torch.full((like.shape[0],), t, device=like.device)

    def _dpm_solver(self, timesteps: list[int]) -> "DPMSolverMultistepScheduler":
        """DPM-Solver++ (Lu et al., 2022), second order, deterministic, from diffusers."""
        from diffusers.schedulers.scheduling_dpmsolver_multistep import (
            DPMSolverMultistepScheduler,
        )  # loads scipy: seconds

        config = self.config.schedule
        solver = DPMSolverMultistepScheduler(
            num_train_timesteps=config.steps,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            beta_schedule="scaled_linear",
            prediction_type="sample",
            rescale_betas_zero_snr=config.zero_snr,
            final_sigmas_type="zero",
        )
        solver.set_timesteps(timesteps=timesteps)
        return solver

    def _flow(self, x_hr: Tensor, c_hr: Tensor, options: RestoreOptions) -> ClipFlow | None:
        """Flow of x_HR reduced to LR size, on the latent grid."""
        small = F.avg_pool2d(x_hr, self.scale)
        return clip_flow(small, (c_hr.shape[-2], c_hr.shape[-1]), options.flow)

    def decode(self, z_0: Tensor, x_hr: Tensor, options: RestoreOptions) -> Tensor:
        """x_HQ (N, 3, H, W) of eq. (12), float32, not clamped."""

        def run(z: Tensor, x: Tensor) -> Tensor:
            f_e = self.vae.features(x) if self.vae.takes_features(options.fidelity) else None
            return self.vae.decode(z, z.shape[0], f_e, options.fidelity, x).float()

        return tiled(run, [z_0, x_hr], [self._latent_scale, self.scale], self.scale, options.tile)

    def _fused(self, image: Tensor, searches: Searches, options: RestoreOptions) -> Tensor:
        """Frames (N, 3, H, W) that have learnt from each other along the flows between neighbours, if there are any."""
        if not searches:
            return image
        motion = clip_motion(sent(torch.stack([found() for found in searches]), image.device))
        scales = [self.scale, motion.shape[-1] * self.scale / image.shape[-1]]
        return tiled(fuse, [image, motion], scales, self.scale, options.tile)
