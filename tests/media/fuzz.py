"""Broken files of every container, handled by programs of their own and counted.

    python -m tests.media.fuzz 2000

prints a table of what became of the files. Every file is made from its number, so that one can be made again.
"""

import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdatc_cli.media.ffmpeg import ffmpeg_binary
from tests.conftest import REPO
from tests.media.clips import footage, write_video

PATIENCE = 120  # seconds for one file, on a busy machine
WORKERS = min(4, os.cpu_count() or 1)
GOOD = ("restored", "reported", "refused", "survived")
TONE = ["-f", "lavfi", "-i", "sine=440:d=0.32"]
KINDS: dict[str, list[str]] = {
    "h264.mp4": [*TONE, "-c:v", "libx264", "-bf", "2", "-c:a", "aac"],
    "fast.mp4": [*TONE, "-c:v", "libx264", "-g", "4", "-c:a", "aac", "-movflags", "faststart"],
    "frag.mp4": [*TONE, "-c:v", "libx264", "-g", "4", "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"],
    "av1.mp4": ["-c:v", "libsvtav1", "-preset", "12"],
    "subs.mkv": [*TONE, "-c:v", "libx264", "-c:a", "aac", "-c:s", "srt"],
    "hevc.mkv": [*TONE, "-c:v", "libx265", "-x265-params", "log-level=none", "-c:a", "flac"],
    "ffv1.mkv": ["-c:v", "ffv1"],
    "mjpeg.mov": [*TONE, "-c:v", "mjpeg", "-c:a", "pcm_s16le"],
    "prores.mov": ["-c:v", "prores_ks"],
    "vp9.webm": [*TONE, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"],
    "mpeg2.ts": [*TONE, "-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"],
    "h264.ts": [*TONE, "-c:v", "libx264", "-c:a", "aac"],
    "mpeg4.avi": [*TONE, "-c:v", "mpeg4", "-c:a", "libmp3lame"],
    "anim.gif": [],
    "mpeg2.mpg": [*TONE, "-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"],
    "flash.flv": [*TONE, "-c:v", "flv1"],
    "windows.wmv": ["-c:v", "wmv2"],
    "still.png": ["-frames:v", "1"],
    "still.jpg": ["-frames:v", "1"],
    "still.webp": ["-frames:v", "1"],
    "still.tif": ["-frames:v", "1"],
}
# Where headers keep sizes, counts, rates and time bases: behind a marker, (offset from its start, bytes).
FIELDS: dict[bytes, list[tuple[int, int]]] = {
    b"mvhd": [(16, 4), (20, 4)], b"mdhd": [(16, 4), (20, 4)], b"tkhd": [(28, 4), (80, 4), (84, 4)],
    b"avc1": [(28, 2), (30, 2)], b"av01": [(28, 2), (30, 2)], b"jpeg": [(28, 2), (30, 2)], b"apch": [(28, 2), (30, 2)],
    b"stts": [(8, 4), (12, 4), (16, 4)], b"stsz": [(8, 4), (12, 4), (16, 4)], b"elst": [(8, 4), (12, 4), (16, 4)],
    b"\x2a\xd7\xb1": [(4, 3)], b"\x23\xe3\x83": [(4, 4)], b"\xb0\x81": [(2, 1)], b"\xba\x81": [(2, 1)],
    b"\x44\x89": [(3, 4)], b"avih": [(8, 4), (24, 4), (40, 4), (44, 4)], b"strh": [(28, 4), (32, 4), (40, 4)],
    b"strf": [(12, 4), (16, 4), (22, 2)], b"IHDR": [(4, 4), (8, 4), (12, 1)], b"GIF8": [(6, 2), (8, 2)],
    b"\0\0\1\xb3": [(4, 3), (7, 1)], b"\xff\xc0": [(5, 2), (7, 2)], b"FLV": [(5, 4)], b"VP8": [(14, 3), (10, 4)],
}  # fmt: skip


def make_seeds(folder: Path) -> list[Path]:
    """Small whole files, one of each kind."""
    plain = write_video(folder / "plain.nut", footage(8, 64, 48), codec="ffv1", pix_fmt="bgr0")
    words = folder / "a.srt"
    words.write_text("1\n00:00:00,100 --> 00:00:00,200\nWords\n")
    seeds = []
    for name, how in KINDS.items():
        more = ["-i", str(words)] if name.startswith("subs") else []
        command = [ffmpeg_binary(), "-v", "error", "-nostdin", "-y", "-i", str(plain), *more, *how, "-shortest"]
        subprocess.run([*command, str(folder / name)], check=True, stderr=subprocess.DEVNULL)
        seeds.append(folder / name)
    plain.unlink()
    words.unlink()
    return seeds


def broken(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One way of breaking a file."""
    body = bytearray(data)
    kind = int(rng.integers(9))
    if kind == 0:  # a few flipped bits anywhere
        for _ in range(int(rng.integers(1, 60))):
            body[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:  # cut short
        body = body[: int(rng.integers(1, len(body)))]
    elif kind == 2:  # garbage in the middle
        at, length = int(rng.integers(len(body))), int(rng.integers(1, 4000))
        body[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
    elif kind == 3:  # lies anywhere in the header
        for _ in range(int(rng.integers(1, 8))):
            at = int(rng.integers(min(len(body), 900)))
            body[at : at + 4] = rng.choice(np.array([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000], ">u4")).tobytes()
    elif kind == 4:  # a piece of another file
        at, start = int(rng.integers(len(body))), int(rng.integers(len(other)))
        body[at:at] = other[start : start + int(rng.integers(1, 5000))]
    elif kind == 5:  # a hole
        at = int(rng.integers(len(body)))
        del body[at : at + int(rng.integers(1, 3000))]
    elif kind == 6:  # a stretch of noise in the index at the end, where MP4 and AVI keep it
        for _ in range(int(rng.integers(1, 20))):
            body[-int(rng.integers(1, min(len(body), 1500)))] = int(rng.integers(256))
    else:
        _lie(body, rng)
    return bytes(body)


def _lie(body: bytearray, rng: np.random.Generator) -> None:
    """Absurd dimensions, counts, rates and time bases where the format keeps them."""
    present = [marker for marker in FIELDS if marker in body]
    for _ in range(int(rng.integers(1, 4))):
        if not present:
            return
        marker = present[int(rng.integers(len(present)))]
        at = body.find(marker)
        for _ in range(int(rng.integers(4))):  # one of several
            at = max(body.find(marker, at + 1), at)
        offset, size = FIELDS[marker][int(rng.integers(len(FIELDS[marker])))]
        whole = (1 << 8 * size) - 1
        value = (0, 1, whole, whole >> 1, 60_000 & whole, int(rng.integers(whole)))[int(rng.integers(6))]
        body[at + offset : at + offset + size] = value.to_bytes(size, "big")
        if marker == b"IHDR":  # else nobody would believe it
            body[at + 17 : at + 21] = struct.pack(">I", zlib.crc32(body[at : at + 17]))


class Worker:
    """The program that handles files, watched; started again after it ended."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.media.fuzz_worker"]
        self._process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         stderr=subprocess.DEVNULL)  # fmt: skip

    def ask(self, path: Path) -> dict[str, Any]:
        """What became of a file. Where the program itself fell, it is asked once more with the decoder apart, as in
        the command: "survived" when that ends decently."""
        answer = self._ask(path, apart=False)
        if answer["outcome"] in ("crash", "hang", "memory"):
            again = self._ask(path, apart=True)
            return again | {"outcome": "survived"} if again["outcome"] in GOOD else again
        return answer

    def _ask(self, path: Path, apart: bool) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), apart]) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE * (10 if apart else 1))
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


@dataclass
class Tally:
    """Outcomes by ending of the name, and the answers that are faults of ours, with the files' numbers and names."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    def add(self, number: int, seed: Path, answer: dict[str, Any]) -> bool:
        """Counts an answer; tells whether it is decent."""
        outcome = answer["outcome"]
        decent = outcome in GOOD and "\n" not in answer.get("error", "") and not answer.get("stray")
        self.counts.setdefault(seed.suffix[1:], Counter())[outcome if decent else "fault"] += 1
        if not decent:
            self.faults.append((number, seed.name, answer))
        return decent

    def total(self, outcome: str) -> int:
        """Over all containers."""
        return sum(counter[outcome] for counter in self.counts.values())

    def table(self) -> str:
        """In Markdown."""
        head = ("container", "files", *GOOD, "fault")
        rows = [(name, sum(c.values()), *(c[o] for o in head[2:])) for name, c in sorted(self.counts.items())]
        rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, len(head)))))
        return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows))


def fuzz(seeds: list[Path], count: int, folder: Path, progress: Callable[[int], None] = lambda done: None) -> Tally:
    """Breaks and handles `count` files, WORKERS at a time; those that show a fault are left in `folder`."""
    contents = [path.read_bytes() for path in seeds]
    tally, local, lock, workers = Tally(), threading.local(), threading.Lock(), []

    def handle(number: int) -> None:
        rng = np.random.default_rng([20, number])
        if not hasattr(local, "worker"):
            local.worker = Worker()
            workers.append(local.worker)
        seed = seeds[number % len(seeds)]
        path = folder / f"{number}{seed.suffix}"
        path.write_bytes(broken(contents[number % len(seeds)], contents[int(rng.integers(len(seeds)))], rng))
        answer = local.worker.ask(path)
        with lock:
            if tally.add(number, seed, answer):
                path.unlink()
            progress(sum(sum(c.values()) for c in tally.counts.values()))

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(handle, range(count)):
                pass
    finally:
        for worker in workers:
            worker.close()
    return tally


def main() -> int:
    """Prints the table; the exit code tells whether there was no fault."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    folder = Path(tempfile.mkdtemp(prefix="sdatc-fuzz-"))
    (folder / "seeds").mkdir()

    def progress(done: int) -> None:
        if done % 100 == 0:
            print(f"{done} of {count}", file=sys.stderr, flush=True)

    tally = fuzz(make_seeds(folder / "seeds"), count, folder, progress)
    print(tally.table())
    for number, name, answer in tally.faults:
        print(f"\nfault: file {number} from {name}, kept in {folder}: {answer}")
    if not tally.faults:
        shutil.rmtree(folder)
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
