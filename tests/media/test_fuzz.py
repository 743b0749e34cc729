"""Broken files of every container: an error of one line or a result, never a traceback, a crash, a hang.

200 files; SDATC_FUZZ=2000 makes it the long run.
"""

import json
import os
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPO
from tests.media.clips import footage, write_video

COUNT = int(os.environ.get("SDATC_FUZZ", "200"))
PATIENCE = 60  # seconds for one file, on a busy machine


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, ffmpeg, rich_mkv) -> list[Path]:
    """Small whole files, one of each kind."""
    folder = tmp_path_factory.mktemp("seeds")
    plain = write_video(folder / "plain.mkv", footage(8, 64, 48), codec="ffv1", pix_fmt="bgr0")
    tone = ["-f", "lavfi", "-i", "sine=440:d=0.32"]
    kinds: dict[str, list[str]] = {
        "h264.mp4": [*tone, "-c:v", "libx264", "-bf", "2", "-c:a", "aac"],
        "fast.mp4": [*tone, "-c:v", "libx264", "-g", "4", "-c:a", "aac", "-movflags", "faststart"],
        "frag.mp4": [*tone, "-c:v", "libx264", "-g", "4", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"],
        "hevc.mkv": [*tone, "-c:v", "libx265", "-x265-params", "log-level=none", "-c:a", "flac"],
        "vp9.webm": [*tone, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"],
        "av1.mp4": ["-c:v", "libsvtav1", "-preset", "12"],
        "mpeg2.ts": [*tone, "-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"],
        "h264.ts": [*tone, "-c:v", "libx264", "-c:a", "aac"],
        "mpeg4.avi": [*tone, "-c:v", "mpeg4", "-c:a", "libmp3lame"],
        "mjpeg.mov": [*tone, "-c:v", "mjpeg", "-c:a", "pcm_s16le"],
        "prores.mov": ["-c:v", "prores_ks"],
        "ffv1.mkv": ["-c:v", "ffv1"],
        "anim.gif": [],
        "flash.flv": ["-c:v", "flv1"],
        "windows.wmv": ["-c:v", "wmv2"],
    }
    for name, how in kinds.items():
        ffmpeg("-i", plain, *how, "-shortest", folder / name)
    ffmpeg("-i", plain, "-frames:v", "1", folder / "still.png")
    ffmpeg("-i", plain, "-frames:v", "1", folder / "still.jpg")
    plain.unlink()
    return [*sorted(folder.iterdir()), rich_mkv]


def broken(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One way of breaking a file."""
    body = bytearray(data)
    kind = int(rng.integers(7))
    if kind == 0:  # a few flipped bits anywhere
        for _ in range(int(rng.integers(1, 60))):
            body[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut short
        body = body[: int(rng.integers(1, len(body)))]
    elif kind == 2:  # garbage in the middle
        at, length = int(rng.integers(len(body))), int(rng.integers(1, 4000))
        body[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
    elif kind == 3:  # lies in the header
        for _ in range(int(rng.integers(1, 8))):
            at = int(rng.integers(min(len(body), 900)))
            body[at : at + 4] = rng.choice(np.array([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000], ">u4")).tobytes()
    elif kind == 4:  # a piece of another file
        at, start = int(rng.integers(len(body))), int(rng.integers(len(other)))
        body[at:at] = other[start : start + int(rng.integers(1, 5000))]
    elif kind == 5:  # a hole
        at = int(rng.integers(len(body)))
        del body[at : at + int(rng.integers(1, 3000))]
    else:  # a stretch of noise in the index at the end, where MP4 and AVI keep it
        for _ in range(int(rng.integers(1, 20))):
            body[-int(rng.integers(1, min(len(body), 1500)))] = int(rng.integers(256))
    return bytes(body)


class Worker:
    """The program that handles files, watched; started again after it ended."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.media.fuzz_worker"]
        self._process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         stderr=subprocess.DEVNULL)  # fmt: skip

    def ask(self, path: Path) -> dict[str, Any]:
        """What became of a file; outcome "hang" or "crash" if there is no answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(str(path)) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        self.close()
        answer = {"outcome": "crash" if ready else "hang", "error": f"exit status {self._process.returncode}"}
        self._start()
        return answer

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker()
    yield one
    one.close()


def test_broken_files_end_decently(seeds, worker, tmp_path):
    rng = np.random.default_rng(20)
    contents = [path.read_bytes() for path in seeds]
    outcomes: Counter[str] = Counter()
    bad = []
    for number in range(COUNT):
        which = number % len(seeds)
        path = tmp_path / f"{number}{seeds[which].suffix}"
        path.write_bytes(broken(contents[which], contents[int(rng.integers(len(contents)))], rng))
        answer = worker.ask(path)
        outcomes[answer["outcome"]] += 1
        if answer["outcome"] in ("traceback", "crash", "hang") or "\n" in answer.get("error", "") or answer["stray"]:
            bad.append((number, seeds[which].name, answer))
        elif answer["outcome"] == "written":
            assert answer["written"] == answer["frames"], (number, answer)
        if not bad or bad[-1][0] != number:
            path.unlink()
    print(dict(outcomes))
    assert not bad, "\n".join(map(str, bad))
    assert outcomes["written"] > COUNT / 4 and outcomes["refused"] > 0


def test_whole_files_pass_the_same_way(seeds, worker):
    for path in seeds:
        answer = worker.ask(path)
        assert answer["outcome"] == "written" and answer["damage"] == [] and answer["frames"] >= 1, (path.name, answer)
