"""Work that is stopped at any moment goes on, and the output is the same to the bit."""

import errno
import itertools
import json
import random
import shutil
import subprocess
import sys
from fractions import Fraction

import av
import pytest
from PIL import Image

from sdatc_cli.app import run
from sdatc_cli.engine import job, journal, packets, parallel, segments
from tests.conftest import frames_of, write_clip
from tests.e2e.failing import SHORT, stop_at


@pytest.mark.parametrize(("name", "moments"), [("out.mp4", range(1, 9, 2)), ("out.ts", [6]), ("out.mkv", [6])])
def test_a_run_stopped_at_any_clip_goes_on_to_the_same_file(
    name, moments, short_stretches, sdatc, tmp_path, monkeypatch
):
    source = write_clip(tmp_path / "in.mkv", frames=23, sound=True, scenes=2)
    whole, out = tmp_path / f"whole-{name}", tmp_path / name
    assert sdatc(source, whole)[0] == 0
    resumed = set()
    for calls in moments:
        with monkeypatch.context() as patch:
            stop_at(patch, calls, KeyboardInterrupt())
            code, _, said = sdatc(source, out)
            assert code == 130 and not out.exists()
        kept = journal.work_folder(out).is_dir()
        assert ("the finished part is kept" in said) == kept
        code, result, said = sdatc(source, out)
        assert code == 0 and out.read_bytes() == whole.read_bytes()
        assert result["frames"] == 23 and ("going on after" in said) == kept
        resumed.add(result["resumed_frames"])
        out.unlink()
    assert len(resumed) >= min(3, len(moments))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, whole.name])


def test_other_settings_or_another_input_start_anew_and_say_so(short_stretches, sdatc, tmp_path, monkeypatch):
    source, out = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "out.mp4"

    def interrupt(*words: object) -> None:
        with monkeypatch.context() as patch:
            stop_at(patch, 6, KeyboardInterrupt())
            assert sdatc(source, out, "-y", *words)[0] == 130

    for words, reason in (
        (["--seed", "5"], "other settings"),
        (["--crf", "30"], "other encoder"),
        (["--no-resume"], "--no-resume"),
    ):
        interrupt()
        code, result, said = sdatc(source, out, "-y", *words)
        assert code == 0 and result["resumed_frames"] == 0 and reason in said
    interrupt()
    _, result, said = sdatc(source, out, "-y", model="still")
    assert result["resumed_frames"] == 0 and "other model" in said
    interrupt()
    write_clip(source, frames=20)
    _, result, said = sdatc(source, out, "-y")
    assert result["resumed_frames"] == 0 and "the input has changed" in said and result["frames"] == 20


def test_the_rest_is_restored_in_whole_frames_where_the_beginning_was(short_stretches, sdatc, tmp_path, monkeypatch):
    """However little memory is free by then: the file is the same to the bit."""
    source, out = write_clip(tmp_path / "in.mkv", frames=17, width=64), tmp_path / "out.mp4"
    assert sdatc(source, tmp_path / "whole.mp4")[0] == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 5, KeyboardInterrupt())
        assert sdatc(source, out)[0] == 130
    monkeypatch.setattr("sdatc_cli.engine.job.free_bytes", lambda device: 1 << 20)
    code, result, _ = sdatc(source, out)
    assert code == 0 and result["resumed_frames"] >= SHORT and result["tile"] is None
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_damaged_stretch_is_made_again(short_stretches, sdatc, tmp_path, monkeypatch):
    source, out = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "out.mp4"
    assert sdatc(source, tmp_path / "whole.mp4")[0] == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 7, KeyboardInterrupt())
        assert sdatc(source, out)[0] == 130
    work = journal.work_folder(out)
    assert len(list(work.glob("*.packets"))) >= 2
    second = work / "000001.packets"
    second.write_bytes(second.read_bytes()[:-1] + b"\0")
    with (work / "journal.jsonl").open("a") as file:
        file.write('{"name": "0000')  # torn by a crash
    code, result, _ = sdatc(source, out)
    assert code == 0 and result["resumed_frames"] == SHORT
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_two_runs_on_one_output(short_stretches, sdatc, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=7), tmp_path / "out.mp4"
    other = journal.Journal(journal.work_folder(out), out)
    code, _, said = sdatc(source, out)
    assert code == 6 and "another sdatc" in said
    other.remove()
    assert sdatc(source, out)[0] == 0


def test_a_work_folder_elsewhere(short_stretches, sdatc, tmp_path, monkeypatch):
    source, out, work = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "out.mp4", tmp_path / "work"
    work.mkdir()
    stop_at(monkeypatch, 6, KeyboardInterrupt())
    assert sdatc(source, out, "--work-dir", work)[0] == 130
    assert (journal.work_folder(out, work) / "000000.packets").is_file()
    assert journal.work_folder(out, work).parent == work
    code, result, _ = sdatc(source, out, "--work-dir", work)
    assert code == 0 and result["resumed_frames"] > 0 and list(work.iterdir()) == []
    assert sdatc(source, out, "-y", "--work-dir", source / "below a file")[0] == 6


def test_outputs_of_one_name_share_a_work_folder_in_peace(short_stretches, sdatc, tmp_path, monkeypatch, capfd):
    source, work = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "work"
    outs = [tmp_path / name / "out.mp4" for name in ("one", "other")]
    for folder in (work, *(out.parent for out in outs)):
        folder.mkdir()
    for seed, out in enumerate(outs):
        with monkeypatch.context() as patch:
            stop_at(patch, 6, KeyboardInterrupt())
            assert sdatc(source, out, "--work-dir", work, "--seed", seed)[0] == 130
    assert run(["jobs", str(work), "--json"]) == 0
    assert {job["output"] for job in json.loads(capfd.readouterr().out)} == set(map(str, outs))
    for seed, out in enumerate(outs):
        code, result, _ = sdatc(source, out, "--work-dir", work, "--seed", seed)
        assert code == 0 and result["resumed_frames"] > 0
    assert list(work.iterdir()) == []


def test_jobs_lists_and_cleans(short_stretches, sdatc, tmp_path, monkeypatch, capfd):
    source, out = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "out.mp4"
    stop_at(monkeypatch, 6, KeyboardInterrupt())
    assert sdatc(source, out)[0] == 130
    assert run(["jobs", str(tmp_path), "--json"]) == 0
    (job,) = json.loads(capfd.readouterr().out)
    assert job["output"] == str(out) and job["frames"] >= SHORT and not job["running"]
    assert run(["jobs", str(tmp_path)]) == 0
    assert "out.mp4" in capfd.readouterr().out
    running = journal.Journal(journal.work_folder(out), out)
    assert run(["jobs", str(tmp_path), "--clean"]) == 0
    assert journal.work_folder(out).is_dir()
    running.close()
    assert run(["jobs", str(tmp_path), "--clean"]) == 0
    assert not journal.work_folder(out).exists()


def test_a_full_disk_keeps_what_is_finished(short_stretches, sdatc, tmp_path, monkeypatch):
    """Writing fails with ENOSPC in the third stretch; once there is room the same command ends well."""
    source, out = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "out.mp4"
    assert sdatc(source, tmp_path / "whole.mp4")[0] == 0
    real = packets.PacketFile.write

    def write(self, packet):
        if self.path.name == "000002.packets":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, packet)

    with monkeypatch.context() as patch:
        patch.setattr(packets.PacketFile, "write", write)
        code, _, said = sdatc(source, out)
    assert code == 6 and "the disk is full" in said and "12 finished frames are kept" in said
    code, result, _ = sdatc(source, out)
    assert code == 0 and result["resumed_frames"] == 12
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_little_room_on_the_disk_is_said_before_anything_is_restored(sdatc, tmp_path, monkeypatch):
    source, out = write_clip(tmp_path / "in.mkv", frames=7), tmp_path / "out.mp4"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    code, _, said = sdatc(source, out)
    assert code == 6 and "needs about" in said
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_the_output_folder_disappears(short_stretches, sdatc, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    source = write_clip(tmp_path / "in.mkv", frames=23)
    real = segments.SegmentedVideo.write

    def write(self, frame):
        if frame.index == 14:
            shutil.rmtree(folder)
        real(self, frame)

    monkeypatch.setattr(segments.SegmentedVideo, "write", write)
    code, _, said = sdatc(source, folder / "out.mp4")
    assert code == 6 and "Traceback" not in said and said.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_a_name_that_is_taken_meanwhile(devices, short_stretches, sdatc, tmp_path, monkeypatch):
    source, out = write_clip(tmp_path / "in.mkv", frames=23), tmp_path / "out.mp4"
    real = job.identity_of

    def identity_of(job):
        if journal.work_folder(out).exists():  # at the end
            out.write_text("precious")
        return real(job)

    with monkeypatch.context() as patch:
        for module in (job, parallel):
            patch.setattr(module, "identity_of", identity_of)
        code, _, said = sdatc(source, out, "--device", devices)
    assert code == 6 and "taken now" in said and "23 finished frames are kept" in said
    assert out.read_text() == "precious"
    code, result, _ = sdatc(source, out, "-y")
    assert code == 0 and result["resumed_frames"] == 23 and out.stat().st_size > 100


def test_an_input_that_changes_during_the_run(short_stretches, sdatc, tmp_path, monkeypatch):
    source, out = write_clip(tmp_path / "in.mkv", frames=13), tmp_path / "out.mp4"
    real = segments.SegmentedVideo.write

    def write(self, frame):
        if frame.index == 5:
            with source.open("ab") as file:
                file.write(b"more")
        real(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(segments.SegmentedVideo, "write", write)
        code, _, said = sdatc(source, out)
    assert code == 3 and "changed while it was read" in said and not out.exists()
    code, result, said = sdatc(source, out)
    assert code == 0 and result["frames"] == 13 and "the input has changed" in said


KILLER = """
import os, random, signal, sys, time
from sdatc_cli.app import run
from sdatc_cli.engine import stretch
import sdatc_cli.engine.job
stretch.STRETCH = 6
seed, most, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
rng, kills = random.Random(seed), 0
while True:
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")
        os._exit(run(words))
    if kills < most:
        time.sleep(rng.uniform(0.1, 1.6))
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != -signal.SIGKILL:
        print(kills)
        sys.exit(code)
    kills += 1
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_sigkill_at_random_moments(short_stretches, sdatc, tiny_models, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=60, sound=True), tmp_path / "out.mp4"
    assert sdatc(source, tmp_path / "whole.mp4")[0] == 0
    words = ["upscale", str(source), "-o", str(out), "--model", str(tiny_models["lively"]), "--steps", "1", "-y"]
    seed = str(random.Random(0).randrange(1000))
    done = subprocess.run([sys.executable, "-c", KILLER, seed, "20", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    assert out.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not journal.work_folder(out).exists()


def test_long_gaps_between_frames_do_not_upset_the_joined_stream(short_stretches, sdatc, ffmpeg, tmp_path):
    """Uneven timestamps at the border of two stretches: decoding times still rise and every time survives."""
    write_clip(tmp_path / "even.mkv", frames=30)
    source, out = tmp_path / "uneven.mkv", tmp_path / "out.mp4"
    keep = "lt(n,8)+eq(n,11)+eq(n,20)+gt(n,24)"
    ffmpeg("-i", tmp_path / "even.mkv", "-vf", f"select='{keep}'", "-fps_mode", "vfr", source)
    assert sdatc(source, out)[0] == 0
    times = []
    for path in (source, out):
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(video=0) if p.size]
            times.append(sorted(round(p.pts * p.time_base, 3) for p in packets))
            decoding = [p.dts for p in packets]
    assert times[0] == times[1]
    assert decoding == sorted(set(decoding))


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.ts"])
def test_joined_stretches_tell_their_rate_and_length(name, short_stretches, sdatc, ffmpeg, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=15), tmp_path / name
    assert sdatc(source, out, model="still")[0] == 0
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        assert float(stream.duration * stream.time_base) == pytest.approx(0.6, abs=1e-4)
        decoding = [p.dts * p.time_base for p in container.demux(stream) if p.size]
    assert {b - a for a, b in itertools.pairwise(decoding)} == {Fraction(1, 25)}
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    ffmpeg("-i", out, pictures / "%d.png")
    assert len(list(pictures.iterdir())) == 15


@pytest.mark.parametrize(
    ("codec", "name"),
    [("libx264", "out.mkv"), ("libx265", "out.mp4"), ("libvpx-vp9", "out.webm"), ("prores_ks", "out.mov")],
)
def test_the_last_frame_is_shown_as_long_as_before(codec, name, short_stretches, sdatc, tmp_path):
    """A picture that stands for three seconds at the end of an animation; less where the part ends before."""
    source, out = tmp_path / "in.gif", tmp_path / name
    first, *others = map(Image.fromarray, frames_of(9, 32, 24))
    first.save(source, save_all=True, append_images=others, duration=[100] * 8 + [3000])
    for part, seconds in ([], 3.8), (["--duration", "1"], 1.0):
        assert sdatc(source, out, "--codec", codec, "-y", *part, model="still")[0] == 0
        with av.open(str(out)) as container:
            assert container.duration == pytest.approx(seconds * 1e6, abs=2000)
            assert [frame.time for frame in container.decode(video=0)] == pytest.approx([i / 10 for i in range(9)])


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("libx265", "out.mp4"),
        ("libx265", "out.ts"),
        ("libsvtav1", "out.mkv"),
        ("libvpx-vp9", "out.webm"),
        ("prores_ks", "out.mov"),
        ("mpeg4", "out.avi"),
    ],
)
def test_every_encoder_can_be_joined(codec, name, short_stretches, sdatc, tmp_path):
    """Three stretches of each: all pictures decode, in order, without a complaint of the decoder."""
    source, out = write_clip(tmp_path / "in.mkv", frames=15), tmp_path / name
    code, _, said = sdatc(source, out, "--codec", codec, "--preset", "fast", model="still")
    assert code == 0, said
    with av.open(str(out)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 15 and not any(frame.is_corrupt for frame in frames)
    times = [float(frame.pts * frame.time_base) for frame in frames]
    assert times == pytest.approx([times[0] + i / 25 for i in range(15)], abs=0.002)
