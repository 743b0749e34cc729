"""Every bad input of the list: one line, the right exit code, nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
import torch

from sdatc_cli.app import run
from sdatc_cli.engine import memory
from tests.conftest import write_clip

USAGE, INPUT, MODEL, DEVICE, OUTPUT, INTERRUPTED = 2, 3, 4, 5, 6, 130


@pytest.fixture
def fails(tiny_models, tmp_path, capfd):
    """Runs the command, expects an exit code and one line, and that the folder is as it was; returns the line."""

    def call(code: int, source: Path, out: Path, *words: object, model: Path | None = None) -> str:
        before = snapshot(tmp_path)
        capfd.readouterr()
        model = model or tiny_models["still"]
        ended = run(list(map(str, ["upscale", source, "-o", out, "--model", model, "--steps", 1, "--quiet", *words])))
        said = capfd.readouterr()
        assert ended == code, said.err
        lines = [line for line in said.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1 and lines[0].startswith("error: ") and "internal" not in lines[0], said.err
        assert said.out == "" and "Traceback" not in said.err
        assert snapshot(tmp_path) == before
        return lines[0]

    return call


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_size if p.is_file() else -1 for p in sorted(folder.rglob("*"))}


def test_inputs_that_hold_no_video(fails, ffmpeg, tmp_path):
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no frames")
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 50)
    (tmp_path / "zero.mp4").write_bytes(b"")
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\nhttp://example.com/a.ts\n")
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.3", tmp_path / "sound.mp3")
    for name in ("missing.mp4", "empty_folder", "folder", "text.mp4", "zero.mp4", "zero.png", "list.m3u8", "sound.mp3"):
        assert name in fails(INPUT, tmp_path / name, tmp_path / "out.mp4")


def test_frames_too_small(fails, make_clip, tmp_path):
    small = make_clip(width=14, height=24)
    assert "in.mkv: frames of 14x24 are too small" in fails(INPUT, small, tmp_path / "out.mp4")
    assert "in.mkv: frames" in fails(INPUT, small, tmp_path / "out.mp4", "--sample", tmp_path / "stills")


def test_a_part_beyond_the_end(fails, make_clip, tmp_path):
    fails(INPUT, make_clip(frames=5), tmp_path / "out.mp4", "--start", "60")


def test_outputs_that_cannot_be(fails, make_clip, tmp_path):
    source = make_clip(frames=3)
    (tmp_path / "there.mp4").write_bytes(b"precious")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"precious")
    assert "no such folder" in fails(OUTPUT, source, tmp_path / "nowhere" / "out.mp4")
    assert "is the input" in fails(OUTPUT, source, source, "-y")
    assert "-y" in fails(OUTPUT, source, tmp_path / "there.mp4")
    fails(OUTPUT, source, tmp_path / "photos", "-y")
    fails(OUTPUT, source, tmp_path / "there.mp4" / "out.mp4")
    fails(OUTPUT, source, tmp_path / "new.mp4", "--sample", tmp_path / ("n" * 300))
    fails(USAGE, source, tmp_path / "out.png")
    assert "stdout is not written" in fails(USAGE, source, "-")
    assert "stdin is not read" in fails(USAGE, "-", tmp_path / "out.mp4")


def test_several_frames_for_one_image_are_refused_before_any_work(fails, make_clip, tmp_path, monkeypatch):
    from sdatc_cli.commands import workshop

    monkeypatch.setattr(workshop, "load_model", lambda *words: pytest.fail("the networks were loaded"))
    assert "several frames" in fails(USAGE, make_clip(frames=5), tmp_path / "out.png")


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no folder here that even root cannot write")
def test_an_output_folder_that_cannot_be_written(fails, make_clip):
    fails(OUTPUT, make_clip(frames=3), Path("/proc/out.mp4"))


def test_codecs_and_containers_that_do_not_exist_or_fit(fails, make_clip, tmp_path):
    source = make_clip(frames=3)
    assert "nonsense" in fails(USAGE, source, tmp_path / "out.mp4", "--codec", "nonsense")
    fails(USAGE, source, tmp_path / "out.mp4", "--codec", "aac")
    fails(USAGE, source, tmp_path / "out.webm", "--codec", "libx264")
    fails(USAGE, source, tmp_path / "out.mp4", "--preset", "sluggish")
    assert "from 0 to 51" in fails(USAGE, source, tmp_path / "out.mp4", "--codec", "libx265", "--crf", "52")
    fails(USAGE, source, tmp_path / "out.xyz")


def test_a_device_that_is_not_here(fails, make_clip, tmp_path):
    source = make_clip(frames=3)
    for name in ("cuda", "all"):
        assert f"--device {name}" in fails(DEVICE, source, tmp_path / "out.mp4", "--device", name)


def test_models_that_cannot_be_used(fails, make_clip, tiny_models, tmp_path):
    source, out = make_clip(frames=3), tmp_path / "out.mp4"
    damaged, mismatched, junk, missing = (tmp_path / name for name in ("damaged", "mismatched", "junk", "missing"))
    for folder in (damaged, mismatched, junk):
        shutil.copytree(tiny_models["still"], folder)
    weights = bytearray((damaged / "unet.safetensors").read_bytes())
    weights[-100] ^= 1
    (damaged / "unet.safetensors").write_bytes(weights)
    config = json.loads((mismatched / "config.json").read_text())
    config["model"]["unet"]["channels"] = [16, 32]
    (mismatched / "config.json").write_text(json.dumps(config))
    (junk / "config.json").write_text("{")
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04}q\x00.")
    assert "unet.safetensors" in fails(MODEL, source, out, model=damaged)
    for model in (mismatched, junk, missing, tmp_path / "pickle.pt"):
        assert model.name in fails(MODEL, source, out, model=model)


def test_a_truncated_video_is_restored_as_far_as_it_goes(make_clip, tiny_models, tmp_path, capfd):
    whole = make_clip("whole.mkv", frames=40, sound=True).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    out = tmp_path / "out.mkv"
    words = ["upscale", tmp_path / "cut.mkv", "-o", out, "--model", tiny_models["still"], "--steps", 1, "--json"]
    assert run(list(map(str, words))) == 0
    said = capfd.readouterr()
    result = json.loads(said.out)
    with av.open(str(out)) as container:
        count = sum(1 for _ in container.decode(video=0))
    assert 5 < count == result["frames"] < 40
    assert any("cut short" in notice for notice in result["notices"])
    assert "note: " in said.err


def test_memory_that_runs_out_makes_smaller_tiles(make_clip, tiny_models, tmp_path, capfd, monkeypatch):
    """The allocator is made to fail for tiles over 32 pixels, in the middle of the video."""
    from sdatc_models.restorer import Restorer

    real, calls = Restorer.restore, []

    def restore(self, clip, frames, options):
        calls.append(options.tile)
        if frames[0] >= 3 and (options.tile or 64) > 32:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, clip, frames, options)

    monkeypatch.setattr(Restorer, "restore", restore)
    out = tmp_path / "out.mkv"
    source = make_clip(frames=11, width=64, height=48)
    words = ["upscale", source, "-o", out, "--model", tiny_models["still"], "--steps", 1]
    assert run(list(map(str, words))) == 0
    said = capfd.readouterr().err
    assert calls == [None, None, 32, 32] and said.count("memory ran out") == 1 and "32 pixels" in said
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 11


def test_memory_that_never_suffices(fails, make_clip, tmp_path, monkeypatch):
    from sdatc_models.restorer import Restorer

    def restore(self, clip, frames, options):
        raise MemoryError

    monkeypatch.setattr(Restorer, "restore", restore)
    assert "memory ran out" in fails(DEVICE, make_clip(frames=3), tmp_path / "out.mp4")


def test_little_free_memory_means_tiles_from_the_start(make_clip, tiny_models, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("sdatc_cli.engine.job.free_bytes", lambda device: 1 << 20)
    words = ["upscale", make_clip(frames=3, width=64), "-o", tmp_path / "out.mp4", "--model", tiny_models["still"]]
    assert run(list(map(str, [*words, "--steps", 1, "--json"]))) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["tile"] == memory.SMALLEST_TILE and "--tile" in said.err


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_ctrl_c_in_the_middle(numbers, tiny_models, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=400), tmp_path / "out.mp4"
    words = ["upscale", source, "-o", out, "--model", tiny_models["still"], "--steps", "50"]
    with subprocess.Popen(
        [sys.executable, "-m", "sdatc_cli", *map(str, words)], stderr=subprocess.PIPE, text=True
    ) as p:
        assert p.stderr is not None
        for line in p.stderr:
            if "restoring: " in line and not line.startswith("restoring: 0/"):
                break
        for number in numbers:
            p.send_signal(number)
            time.sleep(0.05)
        began = time.monotonic()
        rest = p.stderr.read()
    assert p.returncode == INTERRUPTED
    assert time.monotonic() - began < 60
    assert rest.splitlines()[-1].startswith("error: interrupted") and "Traceback" not in rest
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("late", [0.0, 0.02, 0.05])
def test_ctrl_c_after_the_work_does_not_change_the_exit_code(late):
    """torch makes Python's own last steps long enough to be hit."""
    program = "import sys, torch; sys.argv[1:] = ['--version']; from sdatc_cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as p:
        assert p.stdout is not None and p.stderr is not None
        assert p.stdout.readline().startswith("sdatc ")
        time.sleep(late)
        p.send_signal(signal.SIGINT)
        said = p.stderr.read()
    assert p.returncode in (0, INTERRUPTED) and "Traceback" not in said


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_beside_the_work_is_an_interruption(when):
    """In the moments in which the command's own handling does not stand yet, or no more."""
    program = f"""
import os, signal, sys
import sdatc_cli.app as tool
work = tool.run
def run(arguments):
    if {when!r} == "after":
        work(arguments)
    os.kill(os.getpid(), signal.SIGINT)
tool.run, sys.argv[1:] = run, ["--version"]
tool.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == INTERRUPTED and done.stderr == "error: interrupted\n"
    assert done.stdout.startswith("sdatc ") == (when == "after")


def test_names_that_are_hard_to_quote(make_clip, tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-dash.mkv", "100%d.mkv", 'it\'s "quoted".mkv', "new\nline.mkv", "ünï.mkv", "[a]*?.mkv"):
        source = make_clip(frames=2)
        source.rename(tmp_path / name)
        words = ["upscale", "-o", f"out {name}", "--model", str(tiny_models["still"]), "--steps", "1", "--", name]
        assert run(words) == 0, name
        with av.open(f"file:{tmp_path / f'out {name}'}") as container:
            assert sum(1 for _ in container.decode(video=0)) == 2


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_closed_stderr_costs_only_what_is_said_there(tiny_models, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=3), tmp_path / "out.mp4"
    words = [sys.executable, "-m", "sdatc_cli", "upscale", source, "-o", out, "--model", tiny_models["still"]]
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *map(str, words), "--steps", "1"]
    assert subprocess.run(closed, timeout=300, check=False).returncode == 0
    with av.open(out) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3


def test_an_output_folder_that_cannot_be_written_is_told_before_the_work(
    make_clip, tiny_models, tmp_path, monkeypatch, capfd
):
    source, work = make_clip(frames=2), tmp_path / "work"

    def refuse(**how):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("sdatc_cli.media.target.tempfile.mkstemp", refuse)
    monkeypatch.setattr("sdatc_cli.engine.job.restore_frames", lambda *a: pytest.fail("it was restored"))
    words = ("upscale", source, "-o", tmp_path / "out.mp4", "--work-dir", work, "--model", tiny_models["still"])
    assert run([str(word) for word in words]) == 6
    assert "Read-only file system" in capfd.readouterr().err
