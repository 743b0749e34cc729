"""Makes parts of a run fail."""

SHORT = 6  # frames a stretch, where the test can choose


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
