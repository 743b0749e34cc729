"""`sdatc upscale`: a video (image, folder of frames) in, a larger, restored one out."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdatc_cli import output, settings
from sdatc_cli.commands.engines import Engine, restore
from sdatc_cli.errors import Interrupted, ModelError

if TYPE_CHECKING:
    import torch

    from sdatc_cli.engine.job import Job, Result
    from sdatc_models.restorer import Restorer

In = Annotated[Path, typer.Argument(metavar="IN", help="A video, an image, or a folder of numbered frames.")]
Out = Annotated[Path, typer.Option("-o", "--output", help="A video file, an image, or a folder for PNG frames.")]
Scale = Annotated[int, typer.Option(help="2, 3 or 4 times the size; 2 and 3 are reduced from 4.")]
Model = Annotated[str, typer.Option(help="lite, base, or the path of a model folder.")]
Steps = Annotated[int, typer.Option(help="Denoising steps, 1 to 1000.")]
Solver = Annotated[Literal["ddpm", "dpmpp"], typer.Option(help="How a step is taken; dpmpp needs fewer of them.")]
Fidelity = Annotated[float, typer.Option(help="0 (free) to 1 (true to the input): the weight omega of eq. (12).")]
Guidance = Annotated[float | None, typer.Option(help="Strength of the motion guidance, 0 for none. [default: tuned]")]
Flow = Annotated[Literal["dis", "raft", "none"], typer.Option(help="Optical flow; raft needs torchvision.")]
Color = Annotated[Literal["adain", "wavelet", "none"], typer.Option(help="How colours are kept.")]
Seed = Annotated[int, typer.Option(help="The noise; the same seed gives the same video.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; several as cuda:0,cuda:1 or all.")]
EngineName = Annotated[Literal["local", "ray"], typer.Option("--engine", help="ray: the nodes of a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="Of the Ray cluster. [default: RAY_ADDRESS, else this machine]")]
Dtype = Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Number format of the networks.")]
Tile = Annotated[str, typer.Option(help="auto, or the edge of a tile in input pixels: smaller needs less memory.")]
Codec = Annotated[str, typer.Option(help="Video encoder.")]
Crf = Annotated[int, typer.Option(help="Quality of the encoder; lower is better and larger.")]
Preset = Annotated[str, typer.Option(help="Speed of the encoder.")]
Start = Annotated[str | None, typer.Option(metavar="T", help="Begin here: seconds or [HH:]MM:SS.")]
Duration = Annotated[str | None, typer.Option(metavar="T", help="Restore this long.")]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Take up unfinished work of an earlier run.")]
WorkDir = Annotated[Path | None, typer.Option(metavar="DIR", help="Where unfinished work lies. [default: beside OUT]")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def upscale(
    source: In,
    out: Out,
    scale: Scale = 4,
    model: Model = "lite",
    steps: Steps = 50,
    solver: Solver = "ddpm",
    fidelity: Fidelity = 0.75,
    guidance: Guidance = None,
    flow: Flow = "dis",
    color: Color = "adain",
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    engine: EngineName = "local",
    address: Address = None,
    tile: Tile = "auto",
    codec: Codec = "libx264",
    crf: Crf = 16,
    preset: Preset = "medium",
    start: Start = None,
    duration: Duration = None,
    resume: Resume = True,
    work_dir: WorkDir = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Restores a compressed, low-resolution video and makes it up to four times larger."""
    settings.one_of("--scale", scale, (2, 3, 4))
    settings.between("--steps", steps, 1, 1000)
    settings.between("--fidelity", fidelity, 0, 1)
    settings.between("--guidance", guidance, 0)
    settings.between("--crf", crf, 0, 63)
    settings.between("--seed", seed, 0, 2**63 - 1)
    begin, length = settings.seconds("--start", start), settings.seconds("--duration", duration)
    settings.positive("--duration", length)
    edge = settings.tile_edge(tile)
    settings.preset(codec, preset)

    from sdatc_cli.media.probe import probe
    from sdatc_cli.media.target import check_target
    from sdatc_cli.media.write import EncodeOptions

    info = probe(source)
    check_target(out, source, overwrite)

    from sdatc_cli.engine.job import Job
    from sdatc_models.restorer import RestoreOptions  # from here on torch is needed, which takes seconds

    how = RestoreOptions(steps, solver, fidelity, guidance, flow, color, seed, edge)
    encode = EncodeOptions(codec, crf, preset)
    job = Job(info, out, scale, how, edge is None, encode, begin, length, overwrite, resume, work_dir)
    _run(job, Engine(model, device, dtype, engine, address), output.Terminal(quiet), as_json)


def _run(job: "Job", engine: Engine, terminal: output.Terminal, as_json: bool) -> None:
    try:
        result, how = restore(job, engine, terminal)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {job.out} was not written{_kept(job)}") from None
    terminal.say(summary(job, result))
    if as_json:
        paths = {"input": str(job.info.path), "output": str(job.out), "model": engine.model}
        options = {"scale": job.scale, "restore": asdict(job.restore), "encode": asdict(job.encode)}
        output.print_json(paths | result.as_dict() | how | {"options": options, "notices": terminal.notices})


def _kept(job: "Job") -> str:
    """What an interrupted run leaves for the next one, in words."""
    from sdatc_cli.engine.journal import work_folder

    if not work_folder(job.out, job.work_dir).is_dir():
        return ""
    return "; the finished part is kept, the same command goes on from there"


def model_checksums(model: str) -> dict[str, str]:
    """{weight file: SHA-256} as the model's config states them. ModelError when there is no such model."""
    from sdatc_models import weights

    try:
        return weights.read_config(weights.folder_of(model))[1]
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error


def load_model(model: str, device: "torch.device", dtype: "torch.dtype") -> "Restorer":
    """The networks by name or folder. ModelError when they are missing, damaged or do not fit."""
    from sdatc_models import weights

    try:
        return weights.load(model, device=device, dtype=dtype)
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error


def summary(job: "Job", result: "Result") -> str:
    """The closing line."""
    (w, h), (big_w, big_h) = result.input_size, result.output_size
    peak = " + ".join(f"{output.megabytes(count)} {where}" for where, count in result.peak.items())
    return (
        f"{job.out}: {result.frames} frames, {w}x{h} -> {big_w}x{big_h}, "
        f"{result.seconds:.1f} s, {result.fps:.2f} fps, peak memory {peak or 'unknown'}"
    )
