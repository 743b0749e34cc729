"""Which device and number format a run uses."""

from typing import Literal, get_args

import torch

from sdatc_cli.errors import DeviceError, UsageError

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
INSTRUCTIONS = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}  # of x86 CPUs


def pick_device(name: str) -> torch.device:
    """The device called auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.

    UsageError for another name, DeviceError for a device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise UsageError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            seen = f"only {count} found" if count else "no CUDA device was found"
            raise DeviceError(f"--device {name}: {seen}; `sdatc doctor` lists the devices, --device cpu always works")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: no Metal device was found; --device cpu always works")
    return torch.device("cuda", int(number or 0)) if kind == "cuda" else torch.device(name)  # one name for one card


def pick_devices(names: str) -> list[torch.device]:
    """The devices of a list such as cuda:0,cuda:1 or cpu,cpu; "all" stands for every CUDA device.

    A device that is named twice works in two processes. UsageError for devices of several kinds, whose results differ;
    else as `pick_device`, DeviceError for "all" of none.
    """
    if names == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise DeviceError("--device all: no CUDA device was found; --device cpu always works")
        names = ",".join(f"cuda:{i}" for i in range(count))
    devices = [pick_device(name.strip()) for name in names.split(",")]
    if len({device.type for device in devices}) > 1:
        raise UsageError(f"--device {names}: give devices of one kind, for the results of two kinds differ")
    return devices


def pick_dtype(name: str, *devices: torch.device) -> torch.dtype:
    """The number format of the networks on devices of one kind, at least one.

    auto is bf16 where all of them compute in it (CUDA cards, x86 CPUs with AVX512-BF16 or AMX), else fp16 on CUDA and
    fp32 elsewhere. UsageError for another name.
    """
    if name not in get_args(DtypeName):
        raise UsageError(f"--dtype {name}: choose auto, fp32, bf16 or fp16")
    if name != "auto":
        return DTYPES[name]
    kind = devices[0].type
    if kind == "cpu":
        return torch.bfloat16 if _has_instructions(torch.bfloat16) else torch.float32
    if kind != "cuda":
        return torch.float32
    return torch.bfloat16 if all(map(card_computes_bf16, devices)) else torch.float16


def card_computes_bf16(device: torch.device) -> bool:
    """Whether a CUDA card has instructions for bf16; a machine may have cards of several generations."""
    # torch.cuda.is_bf16_supported answers for the current card, and to make each one current takes memory on it.
    return torch.version.hip is not None or torch.cuda.get_device_properties(device).major >= 8


def imitated(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether PyTorch only imitates a number format on this CPU, which takes longer than fp32."""
    x86 = torch.cpu.get_capabilities().get("architecture") == "x86_64"  # elsewhere we do not know
    return device.type == "cpu" and x86 and not _has_instructions(dtype)


def _has_instructions(dtype: torch.dtype) -> bool:
    """Whether this CPU, if it is an x86, computes in a number format."""
    able = torch.cpu.get_capabilities()
    return dtype not in INSTRUCTIONS or any(able.get(name) for name in INSTRUCTIONS[dtype])


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a number format, as `--dtype` takes it."""
    return next(name for name, value in DTYPES.items() if value == dtype)
