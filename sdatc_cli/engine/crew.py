"""What the parallel engines have in common: they take tasks, and tell what becomes of them."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from sdatc_cli.engine.scan import Task
from sdatc_cli.engine.unit import Made


@dataclass(frozen=True)
class Progress:
    """So many frames of a stretch are stored."""

    number: int
    frames: int


@dataclass(frozen=True)
class Notice:
    """A line for a person."""

    line: str


@dataclass(frozen=True)
class Finished:
    """A stretch is made; its file lies in the work folder."""

    number: int
    made: Made


@dataclass(frozen=True)
class Lost:
    """Whoever made a stretch has died or failed in an unforeseen way; another try may succeed."""

    number: int
    why: str


@dataclass(frozen=True)
class Failed:
    """An error that another try would meet again: a class of errors.py, or an OSError of the work folder."""

    error: Exception


Event = Progress | Notice | Finished | Lost | Failed


class Crew(Protocol):
    """Makes stretches. A context manager: entered, it is ready to work; left with an exception, it stops at once."""

    @property
    def size(self) -> int:
        """How many tasks it wants to have at a time; may change."""
        ...

    @property
    def free(self) -> int | None:
        """Bytes of memory for each task, where there is the least; None where nobody said."""
        ...

    def submit(self, task: Task, tile: int | None) -> None:
        """Takes a task; `tile` is the edge of tiles to restore with, None for whole frames."""

    def events(self) -> list[Event]:
        """What happened since the last call. Waits a moment for something to happen."""
        ...

    def __enter__(self) -> "Crew": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
