"""CUDA graphs: the kernels of a network recorded once for each shape of its inputs, then started all at once.

A fast card is through the small kernels of a UNet before Python has started the next one.
"""

import warnings
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

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

    They are kept for one size of pictures at a time: they hold memory, and all tiles of a film have one size. They
    share it, for one is played at a time, and what it gives is copied. Where there is no memory for a recording, it is
    done without; where one fails otherwise, or gives other numbers, without any from then on. A warning says so.
    """

    def __init__(self) -> None:
        self.on = True
        self._size: Hashable = None
        self._kept: dict[Hashable, Recording | None] = {}
        self._pool: Any = None  # PyTorch's handle of the memory that they share
        self._beside: dict[torch.device, torch.cuda.Stream] = {}  # streams to record on: each takes memory, once made

    def clear(self) -> None:
        """Gives back the memory that recordings hold."""
        self._kept.clear()
        self._pool = None

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
                self._kept[key] = self._trusted(network, inputs)
            # The first pass is played as later ones are: its numbers shall not depend on where a run began.
            recording = self._kept[key]
            return network(*inputs) if recording is None else recording.play(inputs)

    def _trusted(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> Recording | None:
        """A recording that gives what `network` gives of `inputs`, or None after a warning."""
        expected = network(*inputs)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        if expected.device not in self._beside:
            self._beside[expected.device] = torch.cuda.Stream(expected.device)
        try:
            recording = record(network, inputs, self._pool, self._beside[expected.device])
            if torch.allclose(recording.play(inputs), expected, rtol=0.01, atol=0.01 * float(expected.abs().max())):
                return recording
            self.on, reason = False, "it gives other numbers"
        except torch.OutOfMemoryError as error:  # smaller pictures may find enough
            reason = str(error).partition("\n")[0]
        except RuntimeError as error:
            self.on, reason = False, str(error).partition("\n")[0]
        if not self.on:
            self.clear()
        warnings.warn(f"this card does without CUDA graphs, more slowly: {reason}", stacklevel=3)
        return None


def record(network: nn.Module, inputs: tuple[Tensor, ...], pool: Any, beside: "torch.cuda.Stream") -> Recording:
    """The kernels of `network` for CUDA tensors like `inputs`, which work in the memory of `pool`.

    RuntimeError where they cannot be recorded on the stream `beside`.
    """
    # Of other values, so that what it plays of `inputs` cannot be right unless it was computed.
    own = tuple(torch.zeros_like(x) for x in inputs)
    caller = torch.cuda.current_stream()
    torch.cuda.empty_cache()  # the stream beside has a cache of its own
    beside.wait_stream(caller)
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            network(*own)
    caller.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads may use the card meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=beside, capture_error_mode="thread_local"):
            output = network(*own)
    except RuntimeError:
        _end(pool, beside.device_index)
        raise
    finally:
        torch.cuda.set_stream(caller)  # where a recording fails, torch leaves its own stream current
    return Recording(graph, own, output)


def _end(pool: Any, device: int) -> None:
    """Ends what failed where PyTorch has not, whose allocator would take it for underway ever after (its issue 180395).
    Where PyTorch has, it says so by an error."""
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
