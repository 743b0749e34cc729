"""What was made of the last few frames of a stream, so that clips which share frames share the work."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Recent(Generic[T]):
    """The results for the last `size` pictures; the oldest goes first."""

    def __init__(self, size: int):
        self.size = size
        self._kept: dict[Hashable, tuple[Tensor, T]] = {}

    def get(self, key: Hashable, picture: Tensor, make: Callable[[Tensor], T]) -> T:
        """What was made of an equal picture under the same key, or else `make(picture)`, which is kept."""
        kept = self._kept.get(key)
        if kept is not None and torch.equal(kept[0], picture):
            return kept[1]
        self._kept.pop(key, None)
        while len(self._kept) >= self.size:
            del self._kept[next(iter(self._kept))]
        result = make(picture)
        self._kept[key] = (picture, result)
        return result
