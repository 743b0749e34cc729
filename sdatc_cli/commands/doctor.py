"""`sdatc doctor`: what this machine offers."""

import platform
from typing import Annotated, Any

import typer

from sdatc_cli import __version__, output
from sdatc_cli.errors import SdatcError

ENCODERS = (
    *("libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks", "h264_nvenc", "hevc_nvenc", "h264_qsv"),
    *("hevc_qsv", "h264_vaapi", "hevc_vaapi", "h264_videotoolbox", "hevc_videotoolbox"),
)


def doctor(
    model: Annotated[str, typer.Option(help="lite, base, base-v, or the path of a model folder.")] = "lite",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Checks devices, number formats, codecs, ffmpeg and the model; exit code 4 when the model cannot be used."""
    troubles = encoder_troubles()
    findings = {
        "sdatc": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "devices": devices(),
        "encoders": {name: reason is None for name, reason in troubles.items()},
        "encoder_troubles": {name: reason for name, reason in troubles.items() if reason is not None},
        "ffmpeg": ffmpeg(),
    }
    trouble = None
    try:
        findings["model"] = model_state(model)
    except SdatcError as error:
        trouble = error
        findings["model"] = {"name": model, "usable": False, "error": str(error)}
    if as_json:
        output.print_json(findings)
    else:
        typer.echo("\n".join(lines(findings)))
    if trouble is not None:
        raise trouble


def packages() -> dict[str, str]:
    """Versions of what the restoration stands on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "diffusers", "av", "opencv-python-headless", "numpy")}


def devices() -> list[dict[str, Any]]:
    """Every device torch can use, with its memory in bytes and the number formats it computes in."""
    import torch

    from sdatc_cli.engine.device import DTYPES, card_computes_bf16, imitated
    from sdatc_cli.engine.memory import free_bytes

    found: list[dict[str, Any]] = [
        {
            "name": "cpu",
            "what": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
            "free_bytes": free_bytes(torch.device("cpu")),
            "dtypes": [name for name, dtype in DTYPES.items() if not imitated(dtype, torch.device("cpu"))],
        }
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.device("cuda", index)
        found.append(
            {
                "name": str(card),
                "what": torch.cuda.get_device_name(card),
                "free_bytes": free_bytes(card),
                "dtypes": ["fp32", "fp16", *(["bf16"] if card_computes_bf16(card) else [])],
            }
        )
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "what": "Metal", "free_bytes": None, "dtypes": ["fp32", "fp16"]})
    return found


def encoder_troubles() -> dict[str, str | None]:
    """Why the video encoders people ask for cannot be used here; None for those that can, for each was opened."""
    from sdatc_cli.media.encoder_trial import trouble
    from sdatc_cli.media.encoders import find_codec

    found: dict[str, str | None] = {}
    for name in ENCODERS:
        try:
            found[name] = trouble(find_codec(name))
        except SdatcError:
            found[name] = "not built in"
    return found


def ffmpeg() -> dict[str, Any]:
    """The ffmpeg program that `degrade` and VMAF use."""
    from sdatc_cli.media.ffmpeg import ffmpeg_binary

    try:
        return {"path": ffmpeg_binary()}
    except SdatcError as error:
        return {"path": None, "error": str(error)}


def model_state(name: str) -> dict[str, Any]:
    """Loads a model, which verifies its checksum. ModelError when it cannot be used."""
    import torch

    from sdatc_cli.commands.workshop import load_model
    from sdatc_cli.zoo.installed import find
    from sdatc_models import weights
    from sdatc_models.untrained import untrained

    restorer = load_model(name, torch.device("cpu"), torch.float32)
    folder = find(name)
    return {
        "name": name,
        "usable": True,
        "folder": str(folder),
        "parameters": sum(p.numel() for p in restorer.parameters()),
        "untrained": untrained(restorer),
        "sha256": weights.verify(folder),
    }


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings for a person."""
    out = [f"sdatc {findings['sdatc']}, Python {findings['python']}, {findings['platform']}"]
    out.append("packages: " + ", ".join(f"{name} {version}" for name, version in findings["packages"].items()))
    for device in findings["devices"]:
        free = output.megabytes(device["free_bytes"]) + " free, " if device["free_bytes"] else ""
        out.append(f"device {device['name']}: {device['what']}, {free}{', '.join(device['dtypes'])}")
    out.append("encoders: " + ", ".join(name for name, there in findings["encoders"].items() if there))
    missing = ", ".join(f"{name} ({reason})" for name, reason in findings["encoder_troubles"].items())
    out.append(f"encoders that cannot be used here: {missing or 'none'}")
    program = findings["ffmpeg"]
    out.append(f"ffmpeg: {program['path'] or program['error']}")
    model = findings["model"]
    if model["usable"]:
        out.append(f"model {model['name']}: {model['parameters'] / 1e6:.1f} M parameters, in {model['folder']}")
        out.append("  untrained, adds nothing yet: " + (", ".join(model["untrained"]) or "none"))
        out += [f"  {name}: sha256 {digest}" for name, digest in model["sha256"].items()]
    else:
        out.append(f"model {model['name']}: {model['error']}")
    return out
