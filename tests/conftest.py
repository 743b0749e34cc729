"""What tests of several folders share: real footage when it is at hand, small generated clips, tiny models."""

import os
import subprocess
import time
from collections.abc import Callable, Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared"
os.environ["PYTHONPATH"] = os.pathsep.join([str(REPO), str(REPO / "models")])  # for the programs that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are tiny; threads would only wait for each other

Clip = Callable[..., Path]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hides a graphics card from all tests, and the programs that they start, but those marked `cuda`: they look at
    what is the same on every machine."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("cuda") is None:
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setattr(torch.backends.mps, "is_available", lambda: False)
        return (yield)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """What `condition` gives as soon as it is true; AssertionError when it is not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real footage beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared with real footage here")
    return SHARED


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """Runs the ffmpeg program; its own words are in the failure when it fails."""
    from sdatc_cli.media.ffmpeg import ffmpeg_binary

    def call(*arguments: object) -> None:
        command = [ffmpeg_binary(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return call


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two tiny models of the real classes: `still` is untrained (bicubic), `lively` has random weights."""
    import torch

    from sdatc_models import weights
    from sdatc_models.config import tiny
    from sdatc_models.restorer import Restorer

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(7)
    restorer = Restorer(tiny())
    weights.save(restorer, folder / "still")
    with torch.no_grad():
        for parameter in restorer.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    weights.save(restorer, folder / "lively")
    return {"still": folder / "still", "lively": folder / "lively"}


@pytest.fixture
def make_clip(tmp_path: Path) -> Clip:
    """Writes a short H.264 clip of a panned texture; with `sound` an AAC track. Keywords as in `write_clip`."""

    def make(name: str = "in.mkv", **how: object) -> Path:
        return write_clip(tmp_path / name, **how)  # type: ignore[arg-type]

    return make


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture (height, width, 3) uint8 with soft and sharp structure."""
    import cv2

    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cell in (32, 8, 3):
        coarse = rng.random((height // cell + 2, width // cell + 2, 3), np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * cell**0.5
    image -= image.min()
    return (image / image.max() * 255).astype(np.uint8)


def frames_of(count: int, width: int, height: int, scenes: int = 1) -> list[np.ndarray]:
    """A pan over a texture; another texture for each scene."""
    frames = []
    for i in range(count):
        scene = i * scenes // count
        wide = texture(height + 8, width + 2 * count, scene)
        frames.append(np.ascontiguousarray(wide[4 : 4 + height, 2 * i : 2 * i + width]))
    return frames


def write_clip(
    path: Path, frames: int = 7, width: int = 32, height: int = 24, rate: int = 25, sound: bool = False, scenes: int = 1
) -> Path:
    """A clip with the pan of `frames_of`."""
    import av

    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=rate, options={"crf": "12", "preset": "veryfast"})
        video.width, video.height = width, height
        video.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        audio = out.add_stream("aac", rate=48000) if sound else None
        for i, image in enumerate(frames_of(frames, width, height, scenes)):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            time = np.arange(48000 * frames // rate) / 48000
            wave = (0.2 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
            for start in range(0, len(wave) - 1023, 1024):
                block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
                block.sample_rate, block.pts, block.time_base = 48000, start, Fraction(1, 48000)
                out.mux(audio.encode(block))
            out.mux(audio.encode(None))
    return path
