"""The ways in which `sdatc upscale` runs: one output, many, or previews of one."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import typer

from sdatc_cli import output
from sdatc_cli.commands.request import Request
from sdatc_cli.commands.sampling import write_samples
from sdatc_cli.commands.workshop import Workshop, kept
from sdatc_cli.engine.batch import Task, find_inputs, plan_batch, plan_previews
from sdatc_cli.errors import Interrupted, ModelError, OutputError, UsageError
from sdatc_cli.explain import explain
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.encoder_trial import check_encoder
from sdatc_cli.media.encoders import CONTAINERS, EncodeOptions
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.probe import check_size
from sdatc_cli.media.target import check_target


def restore(request: Request) -> None:
    """Carries out a request. Raises the classes of errors.py, and typer.Exit when some of many outputs failed."""
    request.check()
    inputs, many = find_inputs(request.sources, request.out, output.Terminal().notice)
    if many and (request.previews or request.sample is not None):
        option = "--preview" if request.sample is None else "--sample"
        raise UsageError(f"{option} takes a single input, and here are {len(inputs)}")
    if request.sample is not None:
        write_samples(request, inputs[0], request.sample)
        return
    check_encoder(request.encode)
    assert request.out is not None  # request.check() saw to it
    if many:
        codec, overwrite, skip = request.encode.codec, request.overwrite, request.skip_existing
        restore_many(request, plan_batch(inputs, request.out, codec, overwrite, skip), request.look)
    elif request.previews:
        info = request.look(inputs[0])
        if info.kind == "image":
            raise UsageError(f"--preview: {show(info.path)} is a still image, which has no times")
        tasks = plan_previews(info.path, request.out, request.previews, request.duration, request.overwrite)
        restore_many(request, tasks, lambda path: info)
    else:
        restore_one(request, inputs[0], request.out)


def restore_one(request: Request, source: Path, out: Path) -> None:
    """One input, one output."""
    terminal = output.Terminal(request.quiet)
    if request.skip_existing and os.path.lexists(out):
        terminal.say(f"{out}: exists already, left as it is")
        if request.as_json:
            output.print_json({"input": str(source), "output": str(out), "skipped": True})
        return
    info = request.look(source)
    check_size(info)
    check_target(out, source, request.overwrite)
    encoding = [*(f"{name}={value}" for name, value in request.encode.options), *filter(None, [request.encode.pix_fmt])]
    if encoding and (out.suffix.lower() not in CONTAINERS or out.is_dir()):
        raise UsageError(f"{encoding[0]}: {show(out)} holds pictures, which no video encoder makes")
    if idle := _idle(request, info, out):
        terminal.notice(f"{', '.join(idle)}: without effect, for pictures have no times and no video encoder")
    with closing(Workshop(request)) as workshop:
        job = workshop.job(info, out, request.start, request.duration, terminal)
        facts = workshop.restore(job, terminal, "restoring")
    if request.as_json:
        output.print_json(facts)


def _idle(request: Request, info: MediaInfo, out: Path) -> list[str]:
    """The options given, other than their defaults, that mean nothing for a still image or for pictures as output."""
    encode, usual = request.encode, EncodeOptions()
    times = {
        "--start": request.start is not None,
        "--duration": request.duration is not None,
        "--fps": request.fps is not None,
    }
    encoder = {
        "--codec": encode.codec != usual.codec,
        "--crf": encode.crf != usual.crf,
        "--preset": encode.preset != usual.preset,
    }
    given = times if info.kind == "image" else {}
    if out.suffix.lower() not in CONTAINERS or out.is_dir():
        given = given | encoder
    return [name for name, differs in given.items() if differs]


def restore_many(request: Request, tasks: list[Task], look: Callable[[Path], MediaInfo]) -> None:
    """Several outputs, one after the other; one that fails does not stop the others.

    Raises typer.Exit with the code of the first failure; ModelError and Interrupted at once.
    """
    plain = output.Terminal(request.quiet)
    with closing(Workshop(request)) as workshop:
        results = list(_results(workshop, tasks, look, plain))
    counts = {state: sum(r["state"] == state for r in results) for state in ("restored", "skipped", "failed")}
    plain.say(", ".join(f"{count} {state}" for state, count in counts.items()))
    if request.as_json:
        output.print_json(counts | {"results": results})
    codes = [result["exit_code"] for result in results if result["state"] == "failed"]
    if codes:
        raise typer.Exit(codes[0])


def _results(
    workshop: Workshop, tasks: list[Task], look: Callable[[Path], MediaInfo], plain: output.Terminal
) -> Iterator[dict[str, Any]]:
    """The facts of each task for `--json`, those that failed included. ModelError and Interrupted."""
    request, done = workshop.request, 0
    for number, task in enumerate(tasks, 1):
        names = {"input": str(task.source), "output": str(task.out)}
        if task.there:
            plain.say(f"{task.out}: exists already, skipped")
            yield names | {"state": "skipped"}
            continue
        try:
            label = f"restoring {output.one_line(task.out.name)} ({number} of {len(tasks)})"
            restored = {"state": "restored"} | _restore_task(workshop, task, look, label)
        except (KeyboardInterrupt, Interrupted):
            left = kept(task.out, request.work_dir)
            more = f"; finished outputs stay ({done}), --skip-existing leaves them out next time"
            more = more if done and not request.previews else ""
            raise Interrupted(f"interrupted; {task.out} was not written{left}{more}") from None
        except ModelError:
            raise
        except Exception as error:
            if request.debug:
                traceback.print_exc()
            code, line = explain(error)
            subject = show(task.out if request.previews else task.source)
            line = line if subject in line else f"{subject}: {line}"
            output.print_error(line)
            yield names | {"state": "failed", "error": output.one_line(line), "exit_code": code}
        else:
            done += 1
            yield restored


def _restore_task(workshop: Workshop, task: Task, look: Callable[[Path], MediaInfo], label: str) -> dict[str, Any]:
    """Carries out one of several tasks; returns the facts for `--json`."""
    request = workshop.request
    info = look(task.source)
    try:
        task.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{show(task.out.parent)}: cannot be made ({one_line(error)})") from error
    start = request.start if task.start is None else task.start
    terminal = output.Terminal(request.quiet, about=task.out.name)
    job = workshop.job(info, task.out, start, task.duration or request.duration, terminal, task.folder)
    facts = workshop.restore(job, terminal, label)
    times = {"start": job.start, "duration": job.duration}
    return facts | {key: value for key, value in times.items() if value is not None}
