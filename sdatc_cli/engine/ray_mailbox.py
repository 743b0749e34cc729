"""What the tasks of a Ray cluster have to tell while they run. Without torch, so that its process starts fast."""

import pickle
from typing import Any


class Mailbox:
    """An actor: tasks `put` what they have to tell, the one who waits for them takes it all."""

    def __init__(self) -> None:
        self._letters: list[bytes] = []

    def put(self, letter: bytes) -> None:
        """Keeps a pickled event."""
        self._letters.append(letter)

    def take(self) -> list[bytes]:
        """All letters since the last call."""
        letters, self._letters = self._letters, []
        return letters


def opened(letters: list[bytes]) -> list[Any]:
    """The events in letters."""
    return [pickle.loads(letter) for letter in letters]
