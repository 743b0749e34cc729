"""Speed and memory on one device, beside a plain loop of diffusers' modules, in one run. Weights are random.

    python tests/bench/card_speed.py [--size base|lite|tiny] [--device cuda] [--output 512x512 1280x720] [--steps 50]

For each output size: seconds a frame of the restorer (clips, diffusion, decoding, colour; no files) in the midst of a
stream, the most memory that PyTorch reserved for it, the same for the plain loop, the ratio of the two, and the
restorer's share of the rate at which the device multiplies bf16 matrices, measured here too. The plain loop is what one
writes with diffusers: UNet, ControlNet and autoencoder of the same sizes in fp16 (fp32 on a CPU), DDIM, clip by clip,
nothing fused or shared.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.engine.device import dtype_name, pick_device, pick_dtype  # noqa: E402
from sdatc_cli.engine.plan import LENGTH, STRIDE  # noqa: E402
from sdatc_cli.engine.restore import restore_frames  # noqa: E402
from sdatc_cli.media.read import Frame  # noqa: E402
from sdatc_cli.zoo.manifest import MODELS  # noqa: E402
from sdatc_models import weights  # noqa: E402
from sdatc_models.cfw import CFW  # noqa: E402
from sdatc_models.config import ModelConfig, tiny  # noqa: E402
from sdatc_models.pcam import PCAM  # noqa: E402
from sdatc_models.restorer import RestoreOptions, Restorer  # noqa: E402
from sdatc_models.schedule import Schedule  # noqa: E402
from sdatc_models.stam import STAM  # noqa: E402
from sdatc_models.unet import build_backbone  # noqa: E402
from sdatc_models.untrained import pass_over_identities  # noqa: E402

SIZES = {  # as people run them: `base` with the embedded DCM, guided
    "base": MODELS["base"].config,
    "lite": lambda: weights.read_config(weights.folder_of("lite"))[0],
    "tiny": tiny,
}


def clock(device: torch.device) -> float:
    """Seconds; a CUDA device has done by then all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def forget_peak(device: torch.device) -> None:
    """Begins anew with the peak, without what an allocator keeps of earlier work."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gigabytes(device: torch.device) -> float:
    """The most that PyTorch reserved of a CUDA device, else 0: for tensors, for CUDA graphs, and what lies unused."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations a second in products of bf16 matrices."""
    edge = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(edge, edge, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.matmul(a, b)
    began = clock(device)
    for _ in range(20):
        torch.matmul(a, b)
    return 20 * 2 * edge**3 / (clock(device) - began)


class PlainLoop:
    """UNet, ControlNet and autoencoder of a size, as diffusers gives them."""

    def __init__(self, config: ModelConfig, device: torch.device):
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.controlnets.controlnet import ControlNetModel
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        self.device, self.dtype = device, torch.float16 if device.type == "cuda" else torch.float32
        vae, scales = config.vae, len(config.vae.channels)
        self.factor, self.latent, self.context = vae.factor, vae.latent, config.unet.context or 1
        parts: dict[str, Any] = {  # typed as tuples of one
            "down_block_types": ("DownEncoderBlock2D",) * scales,
            "up_block_types": ("UpDecoderBlock2D",) * scales,
            "block_out_channels": vae.channels,
        }
        with torch.device(device):
            self.unet = self._ready(build_backbone(config.unet, vae.latent, vae.latent))
            self.control = self._ready(ControlNetModel.from_unet(build_backbone(config.unet, vae.latent, vae.latent)))
            self.vae = self._ready(
                AutoencoderKL(
                    in_channels=3 * vae.stem**2,
                    out_channels=3 * vae.stem**2,
                    **parts,
                    layers_per_block=vae.layers,
                    latent_channels=vae.latent,
                    norm_num_groups=vae.groups,
                )
            )
        self.scheduler = DDIMScheduler(beta_schedule="scaled_linear")

    def _ready(self, module: torch.nn.Module) -> Any:
        return module.to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)

    @torch.inference_mode()
    def clip(self, frames: int, height: int, width: int, steps: int) -> Tensor:
        """Noise to a picture for one clip of `frames`; `height`, `width` of the output."""
        shape = (frames, self.latent, height // self.factor, width // self.factor)
        z = torch.randn(shape, device=self.device, dtype=self.dtype)
        text = torch.zeros(frames, 77, self.context, device=self.device, dtype=self.dtype)
        hint = torch.rand(frames, 3, 8 * shape[2], 8 * shape[3], device=self.device, dtype=self.dtype)
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            skips, middle = self.control(z, t, encoder_hidden_states=text, controlnet_cond=hint, return_dict=False)
            noise = self.unet(
                z,
                t,
                encoder_hidden_states=text,
                down_block_additional_residuals=skips,
                mid_block_additional_residual=middle,
            ).sample
            z = cast(Any, self.scheduler.step(noise, cast(int, t), z)).prev_sample
        return self.vae.decode(z).sample


def lively(config: ModelConfig, device: torch.device, as_pulled: bool) -> Restorer:
    """A restorer no part of which stands at zero, so that nothing is left out as adding nothing; `as_pulled`: but for
    PCAM, STAM and CFW, which the commands pass over in a model whose modules were never trained."""
    with device, torch.no_grad():
        restorer = Restorer(config)
        own = [m for m in restorer.modules() if as_pulled and isinstance(m, PCAM | STAM | CFW)]
        kept = {id(p) for module in own for p in module.parameters()}
        for parameter in restorer.parameters():
            if id(parameter) not in kept:
                parameter.add_(torch.randn_like(parameter), alpha=1e-3)
        pass_over_identities(restorer)
    # As with a model that is loaded:
    restorer.schedule = Schedule(config.schedule)  # on the host
    weights.settle_convolutions()
    return restorer


def stream(output: tuple[int, int], clips: int) -> list[Frame]:
    """Frames for an output of (width, height); neighbours share their clips as in a film.

    One picture of noise, with a little noise of its own in each frame, which begins no new scene.
    """
    width, height = output
    rng, shape = np.random.default_rng(0), (height // 4, width // 4, 3)
    still = rng.integers(0, 248, shape, np.uint8)
    count = LENGTH + (clips - 1) * STRIDE
    return [Frame(still + rng.integers(0, 8, shape, np.uint8), i, Fraction(1, 25), i) for i in range(count)]


def per_frame(restorer: Restorer, frames: list[Frame], options: RestoreOptions, counter: Callable[[], float]) -> float:
    """By how much `counter` rises a frame in the midst of a stream, where each clip brings STRIDE new frames; the first
    one, which brings more, and for which kernels are recorded, is left out."""
    counts = []

    def network(clip: Tensor, at: Sequence[int]) -> Tensor:
        image = restorer.restore(clip, at, options)
        if not counts:
            counts.append(counter())
        return image

    for _ in restore_frames(frames, network):
        pass
    return (counter() - counts[0]) / (len(frames) - LENGTH)


def own(
    restorer: Restorer, output: tuple[int, int], clips: int, options: RestoreOptions, recorded: bool
) -> tuple[float, float, float]:
    """Of the restorer over a stream: seconds a frame, peak gigabytes, floating-point operations a frame."""
    device = restorer.device
    restorer.unet.recordings.on = False  # nothing counts what is played back
    work = []  # it grows by as much with every step
    for steps in (1, 2):
        other = replace(options, steps=steps, seed=options.seed + 1)  # what is kept must not serve the timed run
        with FlopCounterMode(display=False) as counter:
            work.append(per_frame(restorer, stream(output, 2), other, counter.get_total_flops))
    restorer.unet.recordings.on = recorded
    restorer.forget()
    forget_peak(device)
    seconds = per_frame(restorer, stream(output, 1 + clips), options, lambda: clock(device))
    return seconds, peak_gigabytes(device), work[0] + (options.steps - 1) * (work[1] - work[0])


def plain(config: ModelConfig, device: torch.device, output: tuple[int, int], steps: int) -> tuple[float, float]:
    """Of the plain loop: seconds a frame, peak gigabytes. Its clips overlap as ours do."""
    loop, (width, height) = PlainLoop(config, device), output
    forget_peak(device)
    loop.clip(LENGTH, height, width, 1)
    began = clock(device)
    loop.clip(LENGTH, height, width, steps)
    return (clock(device) - began) / STRIDE, peak_gigabytes(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", nargs="+", default=["512x512", "1280x720"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--clips", type=int, default=2, help="clips that are timed, after the first")
    parser.add_argument("--solver", choices=["ddpm", "dpmpp"], default="ddpm")
    parser.add_argument("--flow", choices=["dis", "none"], default="dis")
    parser.add_argument("--no-mirror", action="store_true", help="without the mean over mirror images, as --fast does")
    parser.add_argument("--as-pulled", action="store_true", help="PCAM, STAM and CFW untrained, as in the download")
    parser.add_argument("--unrecorded", action="store_true", help="without CUDA graphs")
    parser.add_argument("--alone", action="store_true", help="without the plain loop")
    words = parser.parse_args()
    device = pick_device(words.device)
    dtype, config = pick_dtype("auto", device), SIZES[words.size]()
    mirror = not words.no_mirror
    options = RestoreOptions(words.steps, words.solver, mirror, tile=words.tile, flow=words.flow)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    rate = matrix_rate(device)
    print(f"{words.size} on {where}, {dtype_name(dtype)}, {words.steps} steps; bf16 matrices {rate / 1e12:.2f} TFLOP/s")
    for text in words.output:
        width, height = map(int, text.split("x"))
        restorer = lively(config, device, words.as_pulled).in_format(dtype).eval()
        each, peak, work = own(restorer, (width, height), words.clips, options, not words.unrecorded)
        del restorer
        share = 100 * work / each / rate
        print(f"{text}: {each:.3f} s a frame, {peak:.2f} GB, {share:.1f} % of the matrix rate", flush=True)
        if not words.alone:
            plain_each, plain_peak = plain(config, device, (width, height), words.steps)
            ratio = plain_each / each
            print(f"{text}: plain loop {plain_each:.3f} s, {plain_peak:.2f} GB; ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
