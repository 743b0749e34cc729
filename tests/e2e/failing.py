"""Makes parts of a run fail."""

import time
from collections.abc import Callable

SHORT = 6  # frames a stretch, where the test can choose


def await_that(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for another thread's work, which a busy machine may do late."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing came of it in {seconds} s"
        time.sleep(0.01)


def stop_at(monkeypatch, calls: int, error: BaseException) -> None:
    """Makes the network fail at its call number `calls`, once."""
    from sdatc_models.restorer import Restorer

    real, count = Restorer.restore, 0

    def restore(self, clip, frames, options):
        nonlocal count
        count += 1
        if count == calls:
            raise error
        return real(self, clip, frames, options)

    monkeypatch.setattr(Restorer, "restore", restore)
