"""Seconds and peak memory of one method's work."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


@dataclass
class Meter:
    """Times the items of an iteration, the consumer's own work left out.

    `peak_bytes` is the most memory held meanwhile: of the device where the method runs on a CUDA device, else of the
    whole process (on Linux; elsewhere the most the process ever held).
    """

    device: str
    seconds: float = 0.0
    count: int = 0
    peak_bytes: int | None = field(default=None)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The same items."""
        self._reset()
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                self._synchronise()
                self.seconds += time.perf_counter() - began
                break
            self.seconds += time.perf_counter() - began
            self.count += 1
            yield item
        self.peak_bytes = self._peak()

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)

    def _reset(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()  # of what an earlier method left
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            CLEAR_REFS.write_text("5")  # VmHWM starts again from the memory held now
        except OSError:
            return

    def _peak(self) -> int | None:
        if self.device.startswith("cuda"):
            import torch

            return torch.cuda.max_memory_reserved(self.device)  # with what CUDA graphs hold
        try:
            line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        except (OSError, StopIteration):
            return _most_ever()


def _most_ever() -> int | None:
    import sys

    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
