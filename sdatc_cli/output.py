"""What a person sees: progress and notices on stderr, results on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PLAIN_INTERVAL = 5.0  # seconds between progress lines where there is no terminal

Advance = Callable[[int, int | None], None]  # (done, total)


class Lossy:
    """A text stream in place of another. What that cannot take (a closed pipe, a full disk) is lost, not the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def one_line(text: str) -> str:
    """Text as a single printable line."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def print_error(message: str) -> None:
    """The one line of a failure."""
    print(f"error: {one_line(message)}", file=sys.stderr)


def print_json(data: Any) -> None:
    """The only thing on stdout when `--json` was given."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # it has no such letters, or a name is no Unicode
        text = json.dumps(data, indent=2)
    print(text)


def clock(seconds: float) -> str:
    """ "1:05" or "2:03:07"."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def megabytes(count: float) -> str:
    """ "734 MB" or "2.1 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


class Terminal:
    """Shows one job: a Rich bar on a terminal, plain lines elsewhere, neither when quiet. Notices are always shown.

    `about` names the job in its notices, where there are several.
    """

    def __init__(self, quiet: bool = False, about: str = "") -> None:
        self.quiet = quiet
        self._about = f"{one_line(about)}: " if about else ""
        self.notices: list[str] = []
        self._advance: Advance = lambda done, total: None
        self._say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    def progress(self, done: int, total: int | None) -> None:
        """`done` of about `total` frames are finished."""
        self._advance(done, total)

    def notice(self, line: str) -> None:
        """A line a person should read; kept for `--json`."""
        self.notices.append(one_line(line))
        self._say(f"note: {self._about}{one_line(line)}")

    def say(self, line: str) -> None:
        """A line of the ordinary report."""
        if not self.quiet:
            self._say(line)

    @contextmanager
    def showing(self, label: str, unit: str = "frames") -> Iterator[None]:
        """Shows progress while the block runs."""
        if self.quiet:
            yield
        elif sys.stderr.isatty():
            with _bar(self, label, unit):
                yield
        else:
            self._advance = _plain(self._say, label, unit)
            yield

    def attach(self, advance: Advance, say: Callable[[str], None]) -> None:
        """Routes progress and lines to something else than plain stderr."""
        self._advance, self._say = advance, say


@contextmanager
def _bar(terminal: Terminal, label: str, unit: str) -> Iterator[None]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    )
    plain = terminal._say
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(escape(label), total=None, rate="")
        began = time.perf_counter()

        def advance(done: int, total: int | None) -> None:
            seconds = time.perf_counter() - began
            rate = f"{done / seconds:.2f} {unit[0]}ps" if done and seconds else ""
            progress.update(task, completed=done, total=max(total, done) if total else None, rate=rate)

        terminal.attach(advance, lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
        try:
            yield
        finally:
            terminal.attach(lambda done, total: None, plain)


def _plain(say: Callable[[str], None], label: str, unit: str) -> Advance:
    began = time.perf_counter()
    shown, ended = -PLAIN_INTERVAL, False

    def advance(done: int, total: int | None) -> None:
        nonlocal shown, ended
        now = time.perf_counter() - began
        if (now - shown < PLAIN_INTERVAL and done != total) or (ended and done == total):
            return
        shown, ended = now, done == total
        line = f"{label}: {done}/{total if total else '?'} {unit}"
        if done and now > 0:
            line += f", {done / now:.2f} {unit[0]}ps"
            if total and total > done:
                line += f", ETA {clock((total - done) * now / done)}"
        say(line)

    return advance
