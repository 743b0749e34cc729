"""`sdatc upscale` with several inputs: files, patterns and folders, into one folder."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import pytest
from PIL import Image

from sdatc_cli.app import run
from tests.conftest import frames_of, write_clip

USAGE, INPUT, MODEL, OUTPUT, INTERRUPTED = 2, 3, 4, 6, 130


@pytest.fixture
def upscale(tiny_models, capfd):
    """Runs the command with a tiny model; returns (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["upscale", *map(str, words), "--model", str(tiny_models["still"]), "--steps", "1"])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return call


@pytest.fixture
def clips(tmp_path):
    """A folder of two videos, a photo, a file that only looks like a video, and a note."""
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "a10.mp4", frames=3, sound=True)
    write_clip(folder / "a2.mkv", frames=4)
    Image.fromarray(frames_of(1, 32, 24)[0]).save(folder / "photo.jpg")
    (folder / "broken.mp4").write_text("This is not a video.\n" * 50)
    (folder / "notes.txt").write_text("not for restoring")
    return folder


def count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for frame in container.decode(video=0) if (frame.width, frame.height) == (128, 96))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_a_file_and_a_sequence_into_a_folder(clips, upscale, tmp_path, monkeypatch):
    from sdatc_models import weights

    loads, load = [], weights.load
    monkeypatch.setattr(weights, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    write_clip(tmp_path / "single.mkv", frames=2)
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, image in enumerate(frames_of(3, 32, 24)):
        Image.fromarray(image).save(frames / f"{i}.png")
    out = tmp_path / "large" / "of today"
    code, said, errors = upscale(clips, tmp_path / "single.mkv", frames, "-o", out, "--json")
    assert code == INPUT and len(loads) == 1
    assert names(out) == ["a10.mp4", "a2.mkv", "frames", "photo.png", "single.mkv"]
    assert [count(out / name) for name in ("a10.mp4", "a2.mkv", "single.mkv")] == [3, 4, 2]
    with av.open(str(out / "a10.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert Image.open(out / "photo.png").size == (128, 96) and len(names(out / "frames")) == 3
    result = json.loads(said)
    assert (result["restored"], result["skipped"], result["failed"]) == (5, 0, 1)
    order = [Path(entry["input"]).name for entry in result["results"]]
    assert order == ["a2.mkv", "a10.mp4", "broken.mp4", "photo.jpg", "single.mkv", "frames"]
    failed = result["results"][2]
    assert failed["state"] == "failed" and failed["exit_code"] == INPUT and "broken.mp4" in failed["error"]
    assert result["results"][0]["frames"] == 4 and result["results"][0]["state"] == "restored"
    (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert "broken.mp4" in line
    assert errors.splitlines()[-1] == "5 restored, 0 skipped, 1 failed"


def test_what_is_there_stops_everything_or_is_skipped_or_replaced(clips, upscale, tmp_path):
    (clips / "broken.mp4").unlink()
    out = tmp_path / "out"
    out.mkdir()
    (out / "a2.mkv").write_bytes(b"precious")
    code, _, errors = upscale(clips, "-o", out)
    told, error = errors.splitlines()
    assert code == OUTPUT and "a2.mkv" in error and "--skip-existing" in error
    assert told.startswith("note: ") and "passed over notes.txt" in told
    assert names(out) == ["a2.mkv"]
    code, _, errors = upscale(clips, "-o", out, "--skip-existing")
    assert code == 0 and errors.splitlines()[-1] == "2 restored, 1 skipped, 0 failed"
    assert (out / "a2.mkv").read_bytes() == b"precious" and count(out / "a10.mp4") == 3
    assert upscale(clips, "-o", out, "--skip-existing", "-y")[0] == USAGE
    assert upscale(clips, "-o", out, "-y")[0] == 0
    assert count(out / "a2.mkv") == 4


def test_a_pattern_is_expanded_unless_it_is_a_file(clips, upscale, tmp_path):
    out = tmp_path / "out"
    assert upscale(clips / "a*.mkv", clips / "a2.mkv", "-o", out)[0] == 0
    assert names(out) == ["a2.mkv"] and count(out / "a2.mkv") == 4
    assert upscale(clips / "a?.mkv", "-o", tmp_path / "one.mp4")[0] == 0
    assert count(tmp_path / "one.mp4") == 4
    (clips / "a2.mkv").rename(clips / "[a]*.mkv")
    assert upscale(clips / "[a]*.mkv", "-o", tmp_path / "odd.mkv")[0] == 0
    assert count(tmp_path / "odd.mkv") == 4
    code, _, errors = upscale(clips / "zzz*.mp4", "-o", tmp_path / "none.mp4")
    assert code == INPUT and "zzz*.mp4: no such file" in errors


def test_a_container_that_cannot_be_written_becomes_matroska(upscale, ffmpeg, tmp_path):
    write_clip(tmp_path / "a.mp4", frames=2)
    for name in ("a.mpg", "b.gif", "c.webm"):
        coder = ("-c:v", "libvpx-vp9") if name.endswith("webm") else ()
        ffmpeg("-i", tmp_path / "a.mp4", *coder, tmp_path / name)
    write_clip(tmp_path / "d.ts", frames=12)
    inputs = [tmp_path / name for name in ("a.mpg", "b.gif", "c.webm", "d.ts")]
    assert upscale(*inputs, "-o", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["a.mkv", "b.mkv", "c.mkv", "d.ts"]
    assert all(count(tmp_path / "out" / name) > 0 for name in names(tmp_path / "out"))


def test_outputs_that_collide_or_hit_an_input_or_no_folder(clips, upscale, tmp_path):
    twin = tmp_path / "twin"
    twin.mkdir()
    write_clip(twin / "a2.mkv", frames=2)
    code, _, errors = upscale(clips, twin / "a2.mkv", "-o", tmp_path / "out")
    assert code == USAGE and "clips/a2.mkv" in errors and "twin/a2.mkv" in errors
    code, _, errors = upscale(clips, "-o", clips, "-y")
    assert code == OUTPUT and "is an input" in errors
    for out in (tmp_path / "out.mp4", clips / "notes.txt"):
        code, _, errors = upscale(clips, twin, "-o", out)
        assert code == USAGE and "must be a folder" in errors
    assert names(tmp_path) == ["clips", "twin"]


def test_what_no_input_could_survive_stops_at_once(clips, upscale, tmp_path, tiny_models):
    out = tmp_path / "out"
    assert upscale(clips, "-o", out, "--codec", "nonsense")[0] == USAGE
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in tiny_models["still"].iterdir():
        (damaged / path.name).write_bytes(
            path.read_bytes()[:-1] if path.suffix == ".safetensors" else path.read_bytes()
        )
    assert run(["upscale", str(clips), "-o", str(out), "--model", str(damaged), "--quiet"]) == MODEL
    assert not out.exists() or names(out) == []


def test_one_input_whose_output_is_there_can_be_skipped(make_clip, upscale, tmp_path):
    source, out = make_clip(frames=2), tmp_path / "out.mkv"
    out.write_bytes(b"precious")
    code, said, _ = upscale(source, "-o", out, "--skip-existing", "--json")
    assert code == 0 and json.loads(said)["skipped"] is True and out.read_bytes() == b"precious"


def test_ctrl_c_stops_the_batch_and_keeps_what_is_finished(tiny_models, tmp_path):
    for name, frames in (("1.mkv", 2), ("2.mkv", 400), ("3.mkv", 2)):
        write_clip(tmp_path / name, frames=frames)
    inputs, out = [str(tmp_path / f"{i}.mkv") for i in (1, 2, 3)], tmp_path / "out"
    words = ["upscale", *inputs, "-o", str(out), "--model", str(tiny_models["still"]), "--steps", "50"]
    with subprocess.Popen([sys.executable, "-m", "sdatc_cli", *words], stderr=subprocess.PIPE, text=True) as p:
        assert p.stderr is not None
        for line in p.stderr:
            if "2.mkv (2 of 3): " in line and ": 0/" not in line:
                break
        p.send_signal(signal.SIGINT)
        rest = p.stderr.read()
    assert p.returncode == INTERRUPTED and "Traceback" not in rest
    last = rest.splitlines()[-1]
    assert last.startswith("error: interrupted") and "2.mkv" in last and "finished outputs stay (1)" in last
    assert [name for name in names(out) if not name.startswith(".")] == ["1.mkv"] and count(out / "1.mkv") == 2


def test_folders_of_frames_stay_folders_whatever_their_names_end_in(upscale, tmp_path):
    inputs = [tmp_path / "set" / name for name in ("frames.v1", "take.mp4", "shot.png", "Vol. 2")]
    for folder in inputs:
        folder.mkdir(parents=True)
        for i, image in enumerate(frames_of(2, 32, 24)):
            Image.fromarray(image).save(folder / f"{i}.png")
    out = tmp_path / "large"
    assert upscale(tmp_path / "set", "-o", out)[0] == 0
    assert names(out) == sorted(folder.name for folder in inputs)
    assert all(names(out / folder.name) == ["00000000.png", "00000001.png"] for folder in inputs)
