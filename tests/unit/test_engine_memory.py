"""What happens when an allocator finds no memory, and how tiles are chosen."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdatc_cli.engine import device
from sdatc_cli.engine.device import pick_device, pick_dtype
from sdatc_cli.engine.job import Job, pick_tile
from sdatc_cli.engine.memory import (
    SHARE,
    SMALLEST_TILE,
    TILE_BYTES,
    Frugal,
    clip_bytes,
    ran_out_of_memory,
    smaller_tile,
    tile_bytes,
    tile_for,
)
from sdatc_cli.errors import DeviceError, UsageError
from sdatc_cli.media.probe import probe
from sdatc_cli.zoo.manifest import MODELS
from sdatc_models.config import lite
from sdatc_models.restorer import RestoreOptions
from tests.conftest import REPO, write_clip

CLIP = torch.zeros(5, 3, 96, 200)


class Allocator:
    """Fails as a device does for every tile over `limit` pixels."""

    def __init__(self, limit: int, error: Exception) -> None:
        self.limit, self.error, self.tiles = limit, error, []

    def restore(self, clip, frames, options):
        self.tiles.append(options.tile)
        if (options.tile or max(clip.shape[-2:])) > self.limit:
            raise self.error
        return clip


def opencv_without_memory() -> Exception:
    """What OpenCV raises for a picture of more bytes than an address has bits for."""
    one = np.zeros((1, 1), np.uint8)
    try:
        cv2.resize(one, (1 << 30, 1 << 30))
    except cv2.error as error:
        return error
    raise AssertionError("a picture of an exabyte was made")


OOM = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    MemoryError(),
    opencv_without_memory(),
]


@pytest.mark.parametrize("error", OOM, ids=lambda e: type(e).__name__)
def test_the_tile_is_halved_until_it_fits_and_stays_there(error):
    said = []
    device = Allocator(60, error)
    network = Frugal(device, RestoreOptions(), said.append)
    network(CLIP, range(5))
    network(CLIP, range(3, 8))
    assert device.tiles == [None, 100, 50, 50]
    assert said == [f"memory ran out at frame 0; going on with tiles of {tile} pixels" for tile in (100, 50)]


def test_a_device_error_when_the_smallest_tile_does_not_fit():
    network = Frugal(Allocator(0, OOM[0]), RestoreOptions(), lambda line: None)
    with pytest.raises(DeviceError, match="memory ran out"):
        network(CLIP, range(5))


def test_other_errors_pass_through():
    network = Frugal(Allocator(0, RuntimeError("shapes do not match")), RestoreOptions(), lambda line: None)
    with pytest.raises(RuntimeError, match="shapes"):
        network(CLIP, range(5))
    assert not ran_out_of_memory(ValueError("out of memory"))


@given(st.integers(16, 4096))
def test_halving_ends(edge):
    tile, steps = None, 0
    with pytest.raises(DeviceError):
        while True:
            tile = smaller_tile(tile, edge)
            steps += 1
            assert SMALLEST_TILE <= tile < edge
    assert steps <= 8


@given(st.integers(2**26, 2**38), st.integers(1, 5), st.integers(16, 4000), st.integers(16, 4000))
def test_the_chosen_tile_fits_or_is_the_smallest(free, frames, height, width):
    tile = tile_for(free, frames, height, width, 40_000)
    assert clip_bytes(frames, height, width, tile, 40_000) <= SHARE * free or tile == SMALLEST_TILE


PEAK = """
import sys, torch
from sdatc_models.config import lite
from sdatc_models.restorer import RestoreOptions, Restorer
restorer = Restorer(lite()).eval()
for parameter in restorer.parameters():
    torch.nn.init.normal_(parameter, std=0.01)
height, width, tile = map(int, sys.argv[1:])
options = RestoreOptions(steps=1, guidance=1.0, tile=tile or None)
restorer.restore(torch.rand(1, 3, 16, 16), [0], options)
held = lambda key: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before = held("VmRSS")
restorer.restore(torch.rand(5, 3, height, width), range(5), options)
print(held("VmHWM") - before)  # not getrusage, whose peak a new program takes over from the one that started it
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory the process has")
@pytest.mark.parametrize("tile", [None, 48])
def test_the_memory_of_a_clip_is_foretold(tile):
    """With every part of the network at work. Never too little, for a run would die; and not four times too much."""
    words = [sys.executable, "-c", PEAK, "96", "112", str(tile or 0)]
    paths = {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "models")])}
    measured = int(subprocess.run(words, env=os.environ | paths, capture_output=True, check=True, text=True).stdout)
    foretold = clip_bytes(5, 96, 112, tile, TILE_BYTES["lite"])
    assert foretold / 4 < measured < foretold


def test_a_model_costs_what_its_size_asks_for_whatever_its_name():
    """`base-v` is `base` under another name; a model of one's own may be larger than what was measured."""
    assert tile_bytes(MODELS["base-v"].config()) == tile_bytes(MODELS["base"].config()) == TILE_BYTES["base"]
    small, vae = replace(lite(), name="mine"), lite().vae
    assert tile_bytes(small) == TILE_BYTES["lite"]
    wide = replace(small, vae=replace(vae, channels=(192, 192, 192)))
    assert tile_bytes(wide) == 2 * TILE_BYTES["lite"]


def test_little_memory_is_told_before_the_run(tmp_path):
    said = []
    info = probe(write_clip(tmp_path / "a.mkv", 2, 64, 48))
    job = Job(info, tmp_path / "b.mkv")
    assert pick_tile(job, lite(), 10**12, said.append) is None and not said
    assert pick_tile(job, lite(), 10**8, said.append) == SMALLEST_TILE
    assert "to fit the free memory" in said[0] and "memory may run out" in said[1] and len(said) == 2


def test_whole_frames_when_the_system_does_not_say():
    assert tile_for(None, 5, 1000, 1000, 1e6) is None


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", ""])
def test_an_unknown_device_is_a_usage_error(name):
    with pytest.raises(UsageError):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_a_missing_device_is_a_device_error(name):
    with pytest.raises(DeviceError):
        pick_device(name)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks Linux what the CPU can do")
def test_the_cpu_works_in_bf16_where_it_has_instructions_for_it():
    flags = Path("/proc/cpuinfo").read_text().split()
    able = "avx512_bf16" in flags or "amx_bf16" in flags
    assert pick_dtype("auto", pick_device("cpu")) == (torch.bfloat16 if able else torch.float32)


def test_several_cards_work_in_what_all_of_them_have(monkeypatch):
    monkeypatch.setattr(device, "card_computes_bf16", lambda card: card.index != 1)
    cards = [torch.device("cuda", index) for index in range(3)]
    assert pick_dtype("auto", *cards) == pick_dtype("auto", cards[1]) == torch.float16
    assert pick_dtype("auto", cards[0], cards[2]) == torch.bfloat16
    assert pick_dtype("bf16", *cards) == torch.bfloat16


def test_formats_that_a_cpu_only_imitates(monkeypatch):
    cpu = torch.device("cpu")
    able = {"architecture": "x86_64", "avx512_bf16": True, "avx512_fp16": False, "amx_fp16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    formats = [torch.float32, torch.bfloat16, torch.float16]
    assert [device.imitated(dtype, cpu) for dtype in formats] == [False, False, True]
    assert not device.imitated(torch.float16, torch.device("cuda", 0))
    able |= {"avx512_bf16": False, "amx_bf16": False}
    assert [device.imitated(dtype, cpu) for dtype in formats] == [False, True, True]
    able["architecture"] = "aarch64"  # whose instructions have other names
    assert not any(device.imitated(dtype, cpu) for dtype in formats)


def test_the_cpu_works_in_the_format_it_is_told():
    assert pick_dtype("fp32", pick_device("cpu")) == torch.float32
    assert pick_dtype("bf16", pick_device("cpu")) == torch.bfloat16


def test_a_card_has_one_name(monkeypatch):
    """By which a crew knows that two of its processes share one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.pick_devices("cuda, cuda:0,cuda:1") == [torch.device("cuda", index) for index in (0, 0, 1)]
