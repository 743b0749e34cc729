"""`sdatc models`: the models on this machine and those that can be had."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sdatc_cli import output
from sdatc_cli.errors import Interrupted, ModelError

models = typer.Typer(
    name="models",
    help="Lists, pulls, checks, removes and converts models.",
    epilog="Pulled models lie in SDATC_CACHE_DIR, else in the platform's cache folder. What the Hugging Face hub's own "
    "cache holds is not downloaded again; HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE and the like hold.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="The model's name.")]
Pulled = Annotated[str, typer.Argument(help="The model to pull: base or base-v.")]
Chosen = Annotated[str | None, typer.Argument(help="A name or a model folder. [default: all that are here]")]
Source = Annotated[
    str | None, typer.Option(metavar="REPO_OR_FOLDER", help="Look here first: OWNER/NAME[@REVISION] or a folder.")
]
Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoint files, or diffusers folders.")]
Out = Annotated[Path, typer.Option("-o", "--output", metavar="MODEL_DIR", help="A new folder for the model.")]
Init = Annotated[str | None, typer.Option(help="Replace parts of this model. [default: a new one of the kind]")]
Kind = Annotated[
    Literal["base", "base-v"],
    typer.Option(help="What the new model predicts: the noise (Stable Diffusion 2.1-base, DiffBIR v2) or v (v2.1)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@models.command("list")
def list_models(as_json: Json = False, debug: Debug = False) -> None:
    """Lists the embedded models and those that can be pulled."""
    from sdatc_cli.zoo.installed import listed

    found = listed()
    if as_json:
        output.print_json([model.as_dict() for model in found])
        return
    for model in found:
        size = output.megabytes(model.size)
        if model.download:
            size = f"about {size} after a download of {output.megabytes(model.download)}"
        typer.echo(f"{model.name}: {model.state}, {size}, {model.licence}; {model.about}")


@models.command()
def pull(name: Pulled, source: Source = None, quiet: Quiet = False, debug: Debug = False) -> None:
    """Downloads a model's parts, checks them and puts them together. Resumable."""
    from sdatc_cli.zoo.manifest import MODELS
    from sdatc_cli.zoo.sources import parse

    if name not in MODELS:
        raise ModelError(f"there is no model {name!r} to pull; there is: {', '.join(MODELS)}")
    preferred = parse(source) if source else None
    from sdatc_cli.zoo import assemble, installed

    terminal = output.Terminal(quiet)
    if quiet:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    try:
        report = assemble.pull(MODELS[name], preferred, terminal.say)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what was downloaded is kept, the same command goes on from there") from None
    if report is None:
        terminal.say(f"{name} is here already, and whole: {installed.pulled_folder(name)}")
        return
    for line in [*report.lines(), f"{name}: {installed.pulled_folder(name)}"]:
        terminal.say(line)


@models.command()
def verify(name: Chosen = None, debug: Debug = False) -> None:
    """Hashes the weights again; exit code 4 when one is damaged."""
    from sdatc_cli.zoo.installed import listed
    from sdatc_cli.zoo.installed import verify as rehash

    for model in [name] if name else [m.name for m in listed() if m.folder]:
        for file, digest in rehash(model).items():
            typer.echo(f"{digest}  {model}/{file}")


@models.command()
def remove(name: Name, debug: Debug = False) -> None:
    """Deletes a pulled model."""
    from sdatc_cli.zoo.installed import remove as delete

    typer.echo(f"{name} removed, {output.megabytes(delete(name))} freed")


@models.command()
def path(name: Name, debug: Debug = False) -> None:
    """Prints a model's folder."""
    from sdatc_cli.zoo.installed import find

    typer.echo(str(find(name)))


@models.command()
def convert(
    checkpoints: Checkpoints,
    out: Out,
    kind: Kind = "base",
    init: Init = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Makes a model folder of public checkpoints and says what became of every tensor.

    Takes Stable Diffusion 2.1-base as a diffusers folder or as an original file, and DiffBIR v2's or v2.1's ControlNet.
    """
    from sdatc_cli.zoo import assemble

    report = assemble.convert(checkpoints, out, kind, init)
    if as_json:
        output.print_json({"output": str(out)} | report.as_dict())
    else:
        typer.echo("\n".join([*report.lines(), f"written: {out}"]))
