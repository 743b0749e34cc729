"""`sdatc jobs`: unfinished work that earlier runs left."""

from pathlib import Path
from typing import Annotated

import typer

from sdatc_cli import output
from sdatc_cli.errors import InputError

Folder = Annotated[Path, typer.Argument(help="Where outputs, or --work-dir folders, lie.")]
Clean = Annotated[bool, typer.Option("--clean", help="Delete the unfinished work; running jobs are left alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print the list as JSON on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def jobs(folder: Folder = Path("."), clean: Clean = False, as_json: Json = False, debug: Debug = False) -> None:
    """Lists the unfinished work in a folder, or deletes it."""
    from sdatc_cli.engine.journal import unfinished
    from sdatc_cli.media.container import show

    if not folder.is_dir():
        raise InputError(f"{show(folder)}: no such folder")
    found = unfinished(folder)
    if clean:
        gone = [job for job in found if not job.running and job.delete()]
        typer.echo(f"{len(gone)} unfinished jobs deleted", err=as_json)
        found = [job for job in found if job not in gone]
    if as_json:
        output.print_json([job.as_dict() for job in found])
        return
    for job in found:
        state = "running" if job.running else "stopped"
        typer.echo(f"{show(job.output)}: {job.frames} frames finished, {output.megabytes(job.size)}, {state}")
    if not found and not clean:
        typer.echo("no unfinished work")
