"""CUDA graphs: the kernels of a network recorded once for each shape of its inputs, then started all at once.

A fast card is through the small kernels of a UNet before Python has started the next one.
"""

import warnings
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WARM_UP = 2  # passes before recording, in which libraries choose their kernels and take their memory


@dataclass(frozen=True)
class Recording:
    """A graph, the tensors that it reads and the one that it writes."""

    graph: "torch.cuda.CUDAGraph"
    inputs: tuple[Tensor, ...]
    output: Tensor

    def play(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The network's output for other values of the same shapes."""
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.output.clone()


class Recordings:
    """Runs one network on CUDA tensors by recordings, which give the same numbers; as it is on a CPU, outside of
    inference mode (training computes in other formats and on tensors of another kind), and where `on` is False.

    They are kept for one size of pictures at a time: they hold memory, and all tiles of a film have one size. Where
    recording fails, or what it recorded gives other numbers, that size is done without, and a warning says so.
    """

    def __init__(self) -> None:
        self.on = True
        self._size: Hashable = None
        self._kept: dict[Hashable, Recording | None] = {}

    def clear(self) -> None:
        """Gives back the memory that recordings hold."""
        self._kept.clear()

    def run(self, network: nn.Module, *inputs: Tensor) -> Tensor:
        """`network` of tensors on one device, the first of them (N, C, H, W)."""
        if not (self.on and inputs[0].is_cuda) or not torch.is_inference_mode_enabled():
            return network(*inputs)
        # Where the weights lie is written into a recording.
        size = (inputs[0].shape[-2:], next(network.parameters()).data_ptr())
        if size != self._size:
            self.clear()
            self._size = size
        key = tuple((x.shape, x.dtype) for x in inputs)
        with torch.cuda.device(inputs[0].device):
            if key not in self._kept:
                other = next((kept for kept in self._kept.values() if kept is not None), None)
                self._kept[key] = _trusted(network, inputs, other)
            # The first pass is played as later ones are: its numbers shall not depend on where a run began.
            recording = self._kept[key]
            return network(*inputs) if recording is None else recording.play(inputs)


def _trusted(network: nn.Module, inputs: tuple[Tensor, ...], other: Recording | None) -> Recording | None:
    """A recording that gives what `network` gives of `inputs`, or None after a warning. `other` as in `record`."""
    expected = network(*inputs)
    try:
        recording = record(network, inputs, other)
        if torch.allclose(recording.play(inputs), expected, rtol=0.01, atol=0.01 * float(expected.abs().max())):
            return recording
        reason = "it gives other numbers"
    except RuntimeError as error:  # no memory for it, too
        reason = str(error).partition("\n")[0]
    warnings.warn(f"this card does without CUDA graphs, more slowly: {reason}", stacklevel=3)
    return None


def record(network: nn.Module, inputs: tuple[Tensor, ...], other: Recording | None) -> Recording:
    """The kernels of `network` for CUDA tensors like `inputs`. RuntimeError where they cannot be recorded.

    It works in the memory of the `other` recordings, if there are any: one is played at a time, and what it gives is
    copied.
    """
    own = tuple(x.clone() for x in inputs)
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            network(*own)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    pool = None if other is None else other.graph.pool()
    caller = torch.cuda.current_stream()
    try:
        # Other threads may use the card meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            output = network(*own)
    finally:
        torch.cuda.set_stream(caller)  # where a recording fails, torch leaves its own stream current
    return Recording(graph, own, output)
