"""`--device cpu,cpu`: two processes make the same file as one, take up each other's work, and survive their deaths."""

import multiprocessing
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from sdatc_cli import output
from sdatc_cli.engine import journal, parallel, workers
from sdatc_cli.engine.job import Job
from sdatc_cli.media.probe import probe
from sdatc_models import weights
from sdatc_models.config import tiny
from sdatc_models.restorer import RestoreOptions, Restorer
from tests.conftest import write_clip
from tests.e2e.failing import SHORT

TWO = ("--device", "cpu,cpu")

pytestmark = [
    pytest.mark.usefixtures("short_stretches"),
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]


@pytest.fixture
def makers(monkeypatch):
    """Notes which process made which stretch, as they are finished."""
    made: list[tuple[int, int]] = []
    real = parallel.record

    def record(book, segment):
        number, pid = segment.name.removesuffix(".packets").split("-")
        made.append((int(number), int(pid)))
        real(book, segment)

    monkeypatch.setattr(parallel, "record", record)
    return made


def kill_at(monkeypatch, number: int, times: int) -> None:
    """Kills the worker that is given stretch `number`, so many times."""
    real, left = workers.WorkerCrew.submit, times

    def submit(self, task, tile):
        nonlocal left
        if task.number == number and left:
            worker = next(worker for worker in self._workers if worker.number is None)
            while not worker.ready and not worker.pipe.poll(0.1):
                assert worker.process.is_alive()
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.join()
            left -= 1
        real(self, task, tile)

    monkeypatch.setattr(workers.WorkerCrew, "submit", submit)


@pytest.mark.parametrize("name", ["out.mp4", "out.avi"])
def test_two_processes_make_the_file_of_one(name, sdatc, makers, ffmpeg, tmp_path, monkeypatch):
    """Uneven times (moved, in AVI), sound, cuts, a beginning inside a stretch."""
    source = tmp_path / "in.mkv"
    ffmpeg(
        *("-i", write_clip(tmp_path / "even.mkv", frames=60, sound=True, scenes=4), "-fps_mode", "vfr"),
        *("-vf", "select='lt(n,8)+eq(n,11)+gt(n,19)',setpts='N/25/TB+floor(N/9)*0.013/TB'", "-g", "12", source),
    )
    codec = ["--codec", "mpeg4"] if name == "out.avi" else []
    one, two = tmp_path / f"one-{name}", tmp_path / name
    part = ["--start", "0.15", *codec]
    assert sdatc(source, one, *part)[0] == 0
    monkeypatch.setattr(output, "PLAIN_INTERVAL", 0.0)  # a fast machine is done before the second line is due
    code, result, said = sdatc(source, two, *part, *TWO)
    assert code == 0, said
    assert two.read_bytes() == one.read_bytes()
    assert result["device"] == "cpu,cpu" and result["frames"] == 45 and result["resumed_frames"] == 0
    assert len(makers) == 9 and len({pid for _, pid in makers}) == 2
    assert "restoring: 1/47 frames" in said
    assert not journal.work_folder(two).exists() and multiprocessing.active_children() == []


def test_workers_that_die_and_work_that_goes_on_elsewhere(sdatc, makers, tmp_path, monkeypatch):
    """Three deaths at one stretch end the run; one process, or two of which one dies, go on with what is kept."""
    source = write_clip(tmp_path / "in.mkv", frames=40, sound=True, scenes=3)
    one, out, other = (tmp_path / name for name in ("one.mp4", "out.mp4", "other.mp4"))
    assert sdatc(source, one)[0] == 0
    with monkeypatch.context() as patch:
        kill_at(patch, 2, 3)
        code, _, said = sdatc(source, out, *TWO)
    assert code == 5, said
    assert "frames 12 to 17 failed 3 times" in said and "finished frames are kept" in said
    assert multiprocessing.active_children() == []
    kept = {number for number, _ in makers}
    assert kept and 2 not in kept
    shutil.copytree(journal.work_folder(out), journal.work_folder(other))
    frames = SHORT * len(kept) - (2 if 6 in kept else 0)
    code, result, said = sdatc(source, out)
    assert code == 0 and out.read_bytes() == one.read_bytes()
    assert result["resumed_frames"] == frames and f"going on after {frames} finished frames" in said
    with monkeypatch.context() as patch:
        kill_at(patch, 2, 1)
        code, result, said = sdatc(source, other, *TWO)
    assert code == 0 and "made again: the worker on cpu ended (SIGKILL" in said
    assert other.read_bytes() == one.read_bytes() and result["resumed_frames"] == frames


def broken_at_first(times: int, folder: Path, model: Path, device: torch.device, dtype: torch.dtype) -> Restorer:
    """The networks; so many processes, which leave their mark in `folder`, are given ones that fail at work."""
    restorer = weights.load(model, device, dtype)
    (folder / str(os.getpid())).touch()
    if len(list(folder.iterdir())) <= times:
        del restorer.dcm
    return restorer


def test_a_stretch_that_fails_is_given_to_another_process_as_often_as_is_said(tiny_models, tmp_path):
    """And not to the one that failed, which ends: that would be one try more gone."""
    (tmp_path / "marks").mkdir()
    load = partial(broken_at_first, parallel.RETRIES, tmp_path / "marks", tiny_models["still"])
    job = Job(probe(write_clip(tmp_path / "in.mkv", frames=5)), tmp_path / "out.mp4", restore=RestoreOptions(steps=1))
    terminal = output.Terminal(quiet=True)
    crew = workers.WorkerCrew(job, load, [torch.device("cpu")], torch.float32)
    assert parallel.upscale(job, crew, tiny(), terminal).frames == 5
    told = [line for line in terminal.notices if "made again" in line]
    assert len(told) == parallel.RETRIES and all("AttributeError on cpu" in line for line in told)
    assert multiprocessing.active_children() == []


def test_two_processes_take_up_the_work_of_one(sdatc, tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mkv", frames=23)
    one, out = tmp_path / "one.mp4", tmp_path / "out.mp4"
    assert sdatc(source, one)[0] == 0
    real, count = Restorer.restore, 0

    def restore(self, clip, frames, options):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return real(self, clip, frames, options)

    with monkeypatch.context() as patch:
        patch.setattr(Restorer, "restore", restore)
        assert sdatc(source, out)[0] == 130
    code, result, _ = sdatc(source, out, *TWO)
    assert code == 0 and result["resumed_frames"] >= SHORT and out.read_bytes() == one.read_bytes()


def test_what_cannot_be_is_said_in_one_line(sdatc, tiny_models, tmp_path, monkeypatch):
    source = write_clip(tmp_path / "in.mkv", frames=7)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "sdatc_cli.engine.ray_engine", raising=False)
    for words, code, line in (
        ([tmp_path / "frames", *TWO], 2, "use one device for pictures"),
        ([tmp_path / "out.mp4", "--device", "cpu,gpu"], 2, "choose auto, cpu"),
        ([tmp_path / "out.mp4", "--address", "auto"], 2, "--engine ray"),
        ([tmp_path / "out.mp4", "--engine", "ray"], 2, "pip install 'sdatc[ray]'"),
    ):
        got, _, said = sdatc(source, *words)
        assert got == code and line in said.splitlines()[-1]
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_models["still"].iterdir():
        content = file.read_bytes()
        (model / file.name).write_bytes(content[:-1] + b"\0" if file.name.startswith("vae") else content)
    code, _, said = sdatc(source, tmp_path / "out.mp4", *TWO, "--model", model)
    assert code == 4 and "is damaged" in said.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "model"]
