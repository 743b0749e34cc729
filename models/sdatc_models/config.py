"""Typed configuration of every network, its JSON form, and the sizes that exist: `lite`, `base`, `tiny` (for tests).

A config says sizes and switches only; it cannot name code.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

PromptKind = Literal["none", "prompt", "softmax", "pcam"]
Prediction = Literal["epsilon", "v", "residual"]
Family = Literal["lite", "base"]


@dataclass(frozen=True)
class DCMConfig:
    """Eq. (5). `blocks` RSTBs of `layers` Swin layers and `pairs` convolution pairs each.

    `expansion`: how many times as wide as the features a pair is inside (Yu et al., 2018, WDSR).
    `mirror`: the mean of what is made of a frame and of its mirror image (self-ensemble; Timofte et al., 2016).
    `quantiser`: whether the network is told how coarsely the codec rounded the frames (dcm.Modulation).
    `enabled=False` is the ablation: bicubic enlargement.
    """

    dim: int
    layers: int
    heads: int
    mlp_ratio: float = 2.0
    up_dim: int = 16
    blocks: int = 6
    pairs: int = 1
    expansion: int = 1
    window: int = 8
    mirror: bool = False
    quantiser: bool = False
    enabled: bool = True


@dataclass(frozen=True)
class PCAMConfig:
    """Eqs. (7), (8). `kind` covers the ablation of Tables 3 and 4; prompts are `length` maps of `size` x `size`."""

    kind: PromptKind = "pcam"
    length: int = 5
    size: int = 16
    heads: int = 2
    expansion: float = 1.0


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder. `channels` from the finest scale to the latent's, each coarser by 2, starting at H / `stem`.

    `linear`: latents are a linear transform of f x f pixel patches, and the convolutional encoder and decoder are
    residuals that start at zero (lite); without it this is Stable Diffusion's autoencoder (base).
    """

    latent: int
    channels: tuple[int, ...]
    layers: int
    groups: int
    stem: int = 1
    linear: bool = False
    attention: bool = True
    scaling: float = 1.0
    stam: bool = True
    stam_heads: int = 1
    cfw: bool = True

    @property
    def factor(self) -> int:
        """f: how many pixels one latent position spans."""
        return self.stem * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class UNetConfig:
    """The denoiser. `context` is the width of the text embedding it attends to, or None for no attention at all.

    `prediction`: the noise ("epsilon"), v (Salimans and Ho, 2022), or what is to be added to C_HR ("residual").
    """

    channels: tuple[int, ...]
    layers: int
    groups: int
    context: int | None = None
    heads: tuple[int, ...] = ()
    prediction: Prediction = "epsilon"


@dataclass(frozen=True)
class ScheduleConfig:
    """Eqs. (1)-(4): T scaled-linear steps; the reverse process starts from q(Z_start | C_HR), `start` = T is noise.

    `shift` moves the mean of Z_t to C_HR as t grows (see schedule.py). `zero_snr` leaves no signal at all in step T.
    """

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    start: int = 1000
    shift: bool = False
    zero_snr: bool = False

    @property
    def few(self) -> int:
        """How many steps of dpmpp will do: 10 for the whole way from noise, less for a part of it."""
        return max(1, round(10 * self.start / self.steps))


@dataclass(frozen=True)
class DetailConfig:
    """`gain`: what the detail is scaled by where there is next to none, and where there is much (detail.amplify);
    `coarse`: how many times as much the latter is for coarsely compressed frames. `fine`: the share of what diffusion
    adds that finely compressed frames keep (detail.kept)."""

    gain: tuple[float, float] = (1.0, 1.0)
    coarse: float = 1.0
    fine: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """A whole model. `guidance` is the tuned s of eq. (14); `fusion`: frames learn from each other (fusion.py)."""

    name: str
    dcm: DCMConfig
    vae: VAEConfig
    unet: UNetConfig
    pcam: PCAMConfig = field(default_factory=PCAMConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    fusion: bool = False
    detail: DetailConfig = field(default_factory=DetailConfig)
    guidance: float = 0.0

    @property
    def family(self) -> Family:
        """Which of the two designs a model follows, whatever its name and size: they are told apart by their codes."""
        return "lite" if self.vae.linear else "base"

    @property
    def multiple(self) -> int:
        """Output pixels to which a frame is padded so that every scale divides evenly."""
        return self.vae.factor * 2 ** (len(self.unet.channels) - 1)


def lite() -> ModelConfig:
    """The embedded size: seconds a frame on a CPU."""
    return ModelConfig(
        name="lite",
        dcm=DCMConfig(
            dim=64,
            layers=1,
            heads=2,
            mlp_ratio=1.5,
            up_dim=24,
            blocks=2,
            pairs=24,
            expansion=2,
            mirror=True,
            quantiser=True,
        ),
        vae=VAEConfig(
            latent=48, channels=(16, 32, 64), layers=1, groups=8, stem=2, linear=True, attention=False, stam_heads=2
        ),
        unet=UNetConfig(channels=(32, 64, 128), layers=1, groups=8, prediction="residual"),
        schedule=ScheduleConfig(start=200, shift=True),
        fusion=True,
        detail=DetailConfig(gain=(1.0, 1.2), coarse=1.15, fine=0.25),
    )


def base() -> ModelConfig:
    """The paper's size: Stable Diffusion 2.1-base's UNet and VAE, SwinIR's transformer."""
    return ModelConfig(
        name="base",
        dcm=DCMConfig(dim=180, layers=6, heads=6, up_dim=64),
        vae=VAEConfig(latent=4, channels=(128, 256, 512, 512), layers=2, groups=32, scaling=0.18215, stam_heads=8),
        unet=UNetConfig(channels=(320, 640, 1280, 1280), layers=2, groups=32, context=1024, heads=(5, 10, 20, 20)),
        pcam=PCAMConfig(size=64, heads=8, expansion=2.0),
    )


def tiny() -> ModelConfig:
    """The smallest network with every part in it, for tests."""
    return ModelConfig(
        name="tiny",
        dcm=DCMConfig(dim=8, layers=2, heads=2, blocks=1, up_dim=4, mirror=True, quantiser=True),
        vae=VAEConfig(latent=16, channels=(8, 8, 8), layers=1, groups=4, stem=2, linear=True, attention=False),
        unet=UNetConfig(channels=(8, 16), layers=1, groups=4, prediction="residual"),
        pcam=PCAMConfig(size=4),
        schedule=ScheduleConfig(start=200, shift=True),
        fusion=True,
        detail=DetailConfig(gain=(0.7, 1.5), coarse=1.3, fine=0.5),
    )


def to_json(config: ModelConfig) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2)


def from_json(text: str) -> ModelConfig:
    """Parse and check names and types. ValueError says which field is wrong."""
    return _build(ModelConfig, json.loads(text), "config")


def _build(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be an object")
        hints = get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise ValueError(f"{where} has unknown fields: {', '.join(sorted(unknown))}")
        try:
            return kind(**{key: _build(hints[key], item, f"{where}.{key}") for key, item in value.items()})
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_build(get_args(kind)[0], item, where) for item in value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{where} must be one of {', '.join(map(str, get_args(kind)))}, not {value!r}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    allowed = () if get_origin(kind) is tuple else get_args(kind) or (kind,)
    if type(value) not in allowed or (type(value) is float and not math.isfinite(value)):
        raise ValueError(f"{where} has a value of the wrong kind: {value!r}")
    return value
