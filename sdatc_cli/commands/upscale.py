"""`sdatc upscale`: a video (image, folder of frames) in, a larger, restored one out."""

from typing import TYPE_CHECKING

from sdatc_cli import settings
from sdatc_cli.commands import upscale_options as option

if TYPE_CHECKING:
    from sdatc_cli.media.encoders import EncodeOptions


def upscale(
    sources: option.Sources,
    out: option.Out = None,
    overwrite: option.Overwrite = False,
    scale: option.Scale = 4,
    model: option.Model = "lite",
    fast: option.Fast = False,
    steps: option.Steps = None,
    solver: option.Solver = None,
    fidelity: option.Fidelity = 0.75,
    detail: option.Detail = 1.0,
    quantiser: option.Quantiser = "auto",
    guidance: option.Guidance = None,
    flow: option.Flow = "dis",
    color: option.Color = "adain",
    seed: option.Seed = 0,
    codec: option.Codec = "libx264",
    crf: option.Crf = 16,
    preset: option.Preset = "medium",
    pix_fmt: option.PixFmt = None,
    encoder_option: option.EncoderOption = None,
    fps: option.Fps = None,
    start: option.Start = None,
    duration: option.Duration = None,
    preview: option.Preview = None,
    sample: option.Sample = None,
    skip_existing: option.SkipExisting = False,
    device: option.Device = "auto",
    dtype: option.Dtype = "auto",
    engine: option.Engine = "local",
    address: option.Address = None,
    tile: option.Tile = "auto",
    resume: option.Resume = True,
    work_dir: option.WorkDir = None,
    allow_protocols: option.Protocols = None,
    as_json: option.Json = False,
    quiet: option.Quiet = False,
    debug: option.Debug = False,
) -> None:
    """Restores compressed, low-resolution video and makes it up to four times larger."""
    settings.one_of("--scale", scale, (2, 3, 4))
    solver = solver or ("dpmpp" if fast else "ddpm")
    steps = 50 if steps is None and not fast else steps
    settings.between("--steps", steps, 1, 1000)
    settings.between("--fidelity", fidelity, 0, 1)
    settings.between("--detail", detail, 0, 2)
    settings.between("--guidance", guidance, 0, settings.MOST_GUIDANCE)
    settings.flow("--flow", flow)
    told = settings.quantiser(quantiser)
    settings.between("--seed", seed, 0, settings.MOST_SEED)
    encode = _encoding(codec, crf, preset, pix_fmt, encoder_option)
    rate = settings.rate("--fps", fps)
    begin, length = settings.seconds("--start", start), settings.seconds("--duration", duration)
    settings.positive("--duration", length)
    previews = settings.moments("--preview", preview)
    network = (steps, solver, not fast, fidelity, detail, guidance, flow, color, seed, settings.tile_edge(tile))

    from sdatc_cli.commands.request import Request
    from sdatc_cli.commands.restoring import restore
    from sdatc_cli.media.container import OUTSIDE

    protocols = settings.names("--allow-protocols", allow_protocols, OUTSIDE)
    restore(
        Request(
            sources=tuple(sources), out=out, scale=scale, network=network, quantiser=told, encode=encode, fps=rate,
            start=begin, duration=length, previews=previews, sample=sample, overwrite=overwrite,
            skip_existing=skip_existing, resume=resume, work_dir=work_dir, protocols=protocols, model=model,
            device=device, dtype=dtype, engine=engine, address=address, as_json=as_json, quiet=quiet, debug=debug,
        )
    )  # fmt: skip


def _encoding(
    codec: str, crf: int, preset: str, pix_fmt: str | None, encoder_option: list[str] | None
) -> "EncodeOptions":
    """The settings of the encoder, each checked by itself. Raises UsageError."""
    settings.between("--crf", crf, 0, settings.coarsest(codec))
    settings.preset(codec, preset)
    extra = settings.pairs("--encoder-option", encoder_option or [])

    from sdatc_cli.media.encoders import EncodeOptions

    return EncodeOptions(codec, crf, preset, pix_fmt, extra)
