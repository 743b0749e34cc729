"""The command line: registers the commands, and turns every failure into one line and an exit code."""

import atexit
import io
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
from sdatc_cli.commands.models import models
from sdatc_cli.commands.panels import PanelCommand
from sdatc_cli.commands.train import train
from sdatc_cli.commands.upscale import upscale
from sdatc_cli.errors import Interrupted
from sdatc_cli.explain import explain
from sdatc_cli.output import Lossy, print_error

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


app.command(cls=PanelCommand)(upscale)
app.command()(degrade)
app.command()(bench)
app.command()(jobs)
app.add_typer(train)
app.add_typer(models)
app.command()(doctor)


def run(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code. Nothing escapes but SystemExit of the interpreter itself, and
    KeyboardInterrupt in the moments in which no command is at work."""
    debug = "--debug" in arguments
    try:
        code = app(arguments, prog_name="sdatc", standalone_mode=False)
    except Exception as error:
        if debug:
            traceback.print_exc()
        code, line = explain(error)
        print_error(line)
        return code
    if code == Interrupted.exit_code:  # typer made it of a KeyboardInterrupt that no command caught
        print_error("interrupted")
    return code if isinstance(code, int) else 0


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
    for name in ("stdout", "stderr"):  # None where the caller closed it; what is said there is lost, not the work
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of names that it has no letters for, as stderr does
    sys.stderr = Lossy(sys.stderr)
    stop = _Stop()
    try:
        if threading.current_thread() is threading.main_thread():
            atexit.register(_stay_deaf)
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)
        code = run(sys.argv[1:])
        stop.count = max(stop.count, 1)  # nothing is left to end
    except KeyboardInterrupt:  # just before the command's own work, or just after it
        code = Interrupted.exit_code
        print_error("interrupted")
    sys.exit(code)


def _stay_deaf() -> None:
    """Python's last steps put the default handlers back, and a late Ctrl-C would then take the exit code away."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
