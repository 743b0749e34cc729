"""From a stream of frames to overlapping clips, and from restored clips back to a stream of frames.

Clips hold `LENGTH` frames and start at multiples of `STRIDE` of the *absolute* frame index, so that the same video
gives the same clips wherever a run begins. No clip crosses a scene border. The first clip of a scene starts with the
scene and the last one ends with it; both may overlap their neighbour by more than two frames. A scene of fewer than
`LENGTH` frames is one clip.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

LENGTH = 5
OVERLAP = 2
STRIDE = LENGTH - OVERLAP

T = TypeVar("T")


@dataclass(frozen=True)
class Clip(Generic[T]):
    """1 to LENGTH consecutive items from the absolute index `start` on; `opens` when a scene begins with them."""

    start: int
    items: tuple[T, ...]
    opens: bool

    @property
    def stop(self) -> int:
        """One past the absolute index of the last item."""
        return self.start + len(self.items)


def clips(frames: Iterable[tuple[int, T, bool]], inside: int | None = None) -> Iterator[Clip[T]]:
    """Cuts a stream into clips, holding at most LENGTH items.

    frames: (absolute index, item, begins a new scene) in rising order, any number of them; a gap in the indices is a
    scene border too. Every item is in at least one clip; clips come in rising order of `start`.

    inside: when the stream begins with this index, it does so inside a scene; the clips from index `inside` + LENGTH on
    are those of a stream that began earlier.
    """
    scene: _Scene[T] | None = None
    for index, item, cut in frames:
        if scene is None or cut or index != scene.stop:
            if scene is not None:
                yield from scene.close()
            scene = _Scene(index, -(-index // STRIDE) * STRIDE if scene is None and index == inside else index)
        yield from scene.push(item)
    if scene is not None:
        yield from scene.close()


@dataclass
class _Scene(Generic[T]):
    """The clips of one scene that begins at the absolute index `start`."""

    start: int
    due: int  # where the next clip on the grid starts
    buffer: list[T] = field(default_factory=list)  # the last LENGTH items
    stop: int = field(init=False)  # one past the last item pushed
    covered: int = field(init=False)  # one past the last item that is in a clip

    def __post_init__(self) -> None:
        self.stop = self.covered = self.start

    def push(self, item: T) -> Iterator[Clip[T]]:
        self.buffer = [*self.buffer[-LENGTH + 1 :], item]
        self.stop += 1
        if self.stop == self.due + LENGTH:
            yield self._clip()
            self.due = (self.due // STRIDE + 1) * STRIDE

    def close(self) -> Iterator[Clip[T]]:
        if self.covered < self.stop:
            yield self._clip()

    def _clip(self) -> Clip[T]:
        start = max(self.start, self.stop - LENGTH)
        self.covered = self.stop
        return Clip(start, tuple(self.buffer), opens=start == self.start)


def weight(position: int, length: int) -> int:
    """Weight of an item at `position` (0 ... length - 1) of its clip: a triangle, so that a clip fades in and out."""
    return min(position, length - 1 - position) + 1


class Blender:
    """Merges restored clips, in order, into frames: each the mean of its copies, weighted by `weight`.

    The mean is taken incrementally, m += (x - m) * w / W: the weights sum to one exactly, and copies that agree stay
    untouched to the last bit.
    """

    def __init__(self) -> None:
        self._means: dict[int, Tensor] = {}
        self._weights: dict[int, int] = {}

    def push(self, start: int, images: Iterable[Tensor], opens: bool) -> Iterator[tuple[int, Tensor]]:
        """Adds a restored clip of float32 images. Yields (absolute index, image) of those no later clip can touch."""
        yield from self.flush(None if opens else start)
        images = list(images)
        for position, image in enumerate(images):
            w = weight(position, len(images))
            index = start + position
            total = self._weights[index] = self._weights.get(index, 0) + w
            mean = self._means.setdefault(index, image)
            if mean is not image:
                self._means[index] = mean + (image - mean) * (w / total)

    def flush(self, before: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yields what is held below the index `before`; everything when it is None."""
        for index in sorted(i for i in self._means if before is None or i < before):
            del self._weights[index]
            yield index, self._means.pop(index)
