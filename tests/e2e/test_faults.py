"""Faults that really happen: the run ends well, or with one line and the finished work kept for the next try."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from sdatc_cli.engine import journal
from sdatc_cli.media import isolated
from tests.conftest import wait_for, write_clip
from tests.e2e.failing import SHORT

FRAMES = 20
OUT_OF_MEMORY = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate"


RUN = """
import resource, sys
from sdatc_cli.app import run
from sdatc_cli.engine import join, stretch
stretch.STRETCH, join.MARGIN = 6, 0
import sdatc_cli.engine.job
limit, words = int(sys.argv[1]), sys.argv[2:]
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
sys.exit(run(words))
"""


def command(limit: int, source: Path, out: Path, model: Path, *more: str) -> list[str]:
    """Runs `upscale` with files of at most `limit` bytes (0: any), in short stretches, the disk used to the end."""
    words = ["upscale", str(source), "-o", str(out), "--model", str(model), "--steps", "1", "--json", *more]
    return [sys.executable, "-c", RUN, str(limit), *words]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("source") / "in.mkv", frames=FRAMES, sound=True)


@pytest.fixture(scope="module")
def whole(source, tiny_models) -> bytes:
    """What an undisturbed run makes."""
    out = source.with_name("whole.mp4")
    subprocess.run(command(0, source, out, tiny_models["lively"]), check=True, capture_output=True)
    return out.read_bytes()


@pytest.fixture
def faulty_decoder(monkeypatch):
    """Makes the process that decodes fail, see tests/media/faulty_decoder.py."""

    def strike(patch: pytest.MonkeyPatch, what: str) -> None:
        patch.setenv("FAULT", what)
        patch.setattr(isolated, "PROGRAM", "tests.media.faulty_decoder")

    return strike


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def one_error(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in said and "internal" not in lines[0], said
    return lines[0]


def test_the_decoding_process_is_killed(short_stretches, whole, faulty_decoder, sdatc, source, tmp_path, monkeypatch):
    out = tmp_path / "out.mp4"
    faulty_decoder(monkeypatch, f"killed 13 {tmp_path / 'flag'}")
    code, result, said = sdatc(source, out)
    assert code == 0 and out.read_bytes() == whole
    assert "SIGKILL and was started again (1 time)" in said and any("SIGKILL" in line for line in result["notices"])


def test_a_codec_that_crashes_every_time(short_stretches, faulty_decoder, sdatc, source, tmp_path, monkeypatch):
    out = tmp_path / "out.mp4"
    faulty_decoder(monkeypatch, "crash 13")
    code, result, said = sdatc(source, out)
    assert code == 0 and "SIGSEGV" in said
    assert any("left out, for the decoder crashed" in line for line in result["notices"])
    assert 0 < FRAMES - result["frames"] < 10 and frames_in(out) == result["frames"]


def test_a_decoder_that_is_beyond_help(short_stretches, whole, faulty_decoder, sdatc, source, tmp_path, monkeypatch):
    out = tmp_path / "out.mp4"
    with monkeypatch.context() as patch:
        patch.setattr(isolated, "_MOST_DEATHS", 1)
        faulty_decoder(patch, "abort 16")
        code, _, said = sdatc(source, out)
    assert code == 3 and "SIGABRT" in one_error(said) and not out.exists()
    code, result, _ = sdatc(source, out)
    assert code == 0 and result["resumed_frames"] in (0, SHORT, 2 * SHORT) and out.read_bytes() == whole


def test_the_allocator_fails_now_and_then(short_stretches, sdatc, source, tmp_path, monkeypatch):
    """Deep in the network, at the first try and once in the middle."""
    real, calls = torch.nn.Conv2d.forward, []

    def forward(self, x):
        calls.append(None)
        if len(calls) in (2, 200):
            raise RuntimeError(OUT_OF_MEMORY)
        return real(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    big = write_clip(tmp_path / "big.mkv", frames=5, width=144, height=96)
    code, result, said = sdatc(big, tmp_path / "out.mp4", model="still")
    assert code == 0 and len(calls) > 200 and said.count("memory ran out") == 2 and result["tile"] == 36
    assert frames_in(tmp_path / "out.mp4") == 5


def test_the_allocator_fails_for_good(short_stretches, whole, sdatc, source, tmp_path, monkeypatch):
    from sdatc_models.restorer import Restorer

    out, real = tmp_path / "out.mp4", Restorer.restore

    def restore(self, clip, frames, options):
        if frames[0] >= 12:
            wait_for(lambda: any(work.frames for work in journal.unfinished(tmp_path)), "the first stretch")
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, clip, frames, options)

    with monkeypatch.context() as patch:
        patch.setattr(Restorer, "restore", restore)
        code, _, said = sdatc(source, out)
    assert code == 5 and "memory ran out" in one_error(said) and not out.exists()
    assert journal.work_folder(out).is_dir()
    code, result, _ = sdatc(source, out)
    assert code == 0 and result["resumed_frames"] == SHORT and out.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_file_that_may_not_grow(whole, source, tiny_models, tmp_path):
    """A limit that the stretches keep and the joined output does not."""
    out = tmp_path / "out.mp4"
    limit = len(whole) * 2 // 3
    done = subprocess.run(command(limit, source, out, tiny_models["lively"]), capture_output=True, text=True)
    assert done.returncode == 6 and "cannot be written" in one_error(done.stderr)
    assert not out.exists() and journal.work_folder(out).is_dir()
    done = subprocess.run(command(0, source, out, tiny_models["lively"]), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_frames"] == FRAMES and out.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


MOUNTED = """
set -e
mount -t tmpfs -o size=$2 tmpfs "$1"; shift 2
if "$@" > first.json 2> first.txt; then echo 0 > code; else echo $? > code; fi
mount -o remount,size=64m "$OLDPWD"
"$@" > second.json
cp "$OLDPWD"/out.mp4 out.mp4
ls -A "$OLDPWD" > left
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_disk_that_is_full(whole, source, tiny_models, tmp_path):
    """A tmpfs that only this test sees and that is too small; with more room the same command ends well."""
    disk, here = tmp_path / "disk", tmp_path / "here"
    disk.mkdir()
    here.mkdir()
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no mounting here")
    size = -(-len(whole) * 6 // 5 // 4096) * 4
    script = f"cd {disk}; cd {here}; {MOUNTED}"
    inner = command(0, source, disk / "out.mp4", tiny_models["lively"])
    outer = ["unshare", "-rm", "sh", "-c", script, "sh", str(disk), f"{size}k", *inner]
    done = subprocess.run(outer, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + (here / "first.txt").read_text()
    assert (here / "code").read_text().strip() == "6"
    line = one_error((here / "first.txt").read_text())
    assert "the disk is full" in line and "finished frames are kept" in line
    assert json.loads((here / "second.json").read_text())["resumed_frames"] >= SHORT
    assert (here / "out.mp4").read_bytes() == whole
    assert (here / "left").read_text().split() == ["out.mp4"]
