"""VMAF of a raw RGB video against its ground truth, computed by FFmpeg's libvmaf with its built-in model."""

import json
import subprocess
import tempfile
from pathlib import Path

import ffmpeg

from sdatc_cli.errors import DeviceError
from sdatc_cli.media.ffmpeg import ffmpeg_binary


def vmaf(truth: Path, video: Path, width: int, height: int, threads: int = 2) -> list[float]:
    """VMAF of every frame, 0..100. Both files hold (height, width, 3) RGB bytes frame after frame.

    DeviceError when this FFmpeg has no libvmaf.
    """
    raw = {"format": "rawvideo", "pix_fmt": "rgb24", "s": f"{width}x{height}", "r": 25}
    with tempfile.TemporaryDirectory(prefix="sdatc-vmaf-") as folder:
        inputs = [ffmpeg.input(str(path.resolve()), **raw).filter("format", "yuv420p") for path in (video, truth)]
        scored = ffmpeg.filter(inputs, "libvmaf", log_fmt="json", log_path="vmaf.json", n_threads=threads)
        command = scored.output("-", format="null").global_args("-v", "error", "-nostdin")
        done = subprocess.run(
            command.compile(cmd=ffmpeg_binary()), cwd=folder, capture_output=True, text=True, check=False
        )
        log = Path(folder) / "vmaf.json"
        if done.returncode != 0 or not log.is_file():
            reason = (done.stderr.strip().splitlines() or ["no log was written"])[-1]
            raise DeviceError(f"FFmpeg could not compute VMAF: {reason}")
        return [frame["metrics"]["vmaf"] for frame in json.loads(log.read_text())["frames"]]
