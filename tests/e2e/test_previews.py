"""`sdatc upscale --preview` and `--sample`: a look at the result before the work is done."""

import json
import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from sdatc_cli.app import run
from tests.conftest import frames_of

USAGE, INPUT, OUTPUT = 2, 3, 6


@pytest.fixture
def upscale(tiny_models, capfd):
    """Runs the command with a tiny model; returns (exit code, stdout, stderr)."""

    def call(*words: object, model: str = "lively") -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["upscale", *map(str, words), "--model", str(tiny_models[model]), "--steps", "1"])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def test_previews_are_parts_with_sound_beside_the_output(make_clip, upscale, tmp_path):
    source, out = make_clip(frames=40, sound=True), tmp_path / "out.mkv"
    code, said, errors = upscale(
        *(source, "-o", out, "--preview", "0.2,0:00.8", "--duration", "0.4", "--codec", "ffv1", "--json")
    )
    assert code == 0
    first, second = tmp_path / "out.preview-0.2.mkv", tmp_path / "out.preview-0.8.mkv"
    assert names(tmp_path) == ["in.mkv", first.name, second.name]
    result = json.loads(said)
    assert result["restored"] == 2 and [r["start"] for r in result["results"]] == [0.2, 0.8]
    whole = pictures(source)
    for path, begin in ((first, 5), (second, 20)):
        images = pictures(path)
        assert len(images) == 10
        small = [cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA) for image in images]
        assert int(np.argmax([psnr(small[0], frame) for frame in whole])) == begin
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video", "audio"]
            sound = [p.pts * p.time_base for p in container.demux(audio=0) if p.size and p.pts is not None]
        assert 0.3 < float(sound[-1] - sound[0]) < 0.5
    assert errors.splitlines()[-1] == "2 restored, 0 skipped, 0 failed"
    code, _, errors = upscale(source, "-o", out, "--preview", "0.2", "--duration", "0.1")
    assert code == OUTPUT and first.name in errors
    assert upscale(source, "-o", out, "--preview", "0.2", "--duration", "0.12", "-y")[0] == 0
    assert len(pictures(first)) == 3


def test_a_preview_from_the_beginning_begins_at_zero(make_clip, upscale, ffmpeg, tmp_path):
    source = tmp_path / "late.mkv"
    ffmpeg("-i", make_clip(frames=15), "-c", "copy", "-output_ts_offset", "5", source)
    assert upscale(source, "-o", tmp_path / "out.mkv", "--preview", "0", "--duration", "0.2", model="still")[0] == 0
    with av.open(str(tmp_path / "out.preview-0.mkv")) as container:
        assert [frame.time for frame in container.decode(video=0)] == [0, 0.04, 0.08, 0.12, 0.16]


def test_a_preview_is_two_seconds_and_one_beyond_the_end_does_not_stop_the_others(make_clip, upscale, tmp_path):
    code, _, errors = upscale(make_clip(frames=80), "-o", tmp_path / "out.mp4", "--preview", "60,1", model="still")
    assert code == INPUT and errors.splitlines()[-1] == "1 restored, 0 skipped, 1 failed"
    assert "preview-60.mp4" in next(line for line in errors.splitlines() if line.startswith("error: "))
    assert names(tmp_path) == ["in.mkv", "out.preview-1.mp4"]
    assert len(pictures(tmp_path / "out.preview-1.mp4")) == 50


def test_samples_show_the_enlarged_frame_beside_the_restored(make_clip, upscale, tmp_path):
    source, shots = make_clip(frames=25), tmp_path / "shots"
    code, said, _ = upscale(source, "--sample", shots, "--scale", "2", "--json")
    assert code == 0 and names(tmp_path) == ["in.mkv", "shots"]
    written = json.loads(said)["samples"]
    assert [entry["seconds"] for entry in written] == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert names(shots) == [f"in.sample-{t}.png" for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    whole = pictures(source)
    for entry in written:
        still = np.asarray(Image.open(entry["output"]))
        assert still.shape == (48, 128, 3)
        large = [cv2.resize(frame, (64, 48), interpolation=cv2.INTER_CUBIC) for frame in whole]
        scores = [psnr(still[:, :64], image) for image in large]
        assert int(np.argmax(scores)) == math.ceil(entry["seconds"] * 25 - 1e-6) and max(scores) > 30
        assert not np.array_equal(still[:, :64], still[:, 64:]) and psnr(still[:, :64], still[:, 64:]) > 12


def test_samples_at_given_times_from_folders_and_of_images(make_clip, upscale, tmp_path):
    source, shots, out = make_clip(frames=12), tmp_path / "shots", tmp_path / "out.mp4"
    code, _, errors = upscale(source, "-o", out, "--sample", shots, "--preview", "0.2,0:00.4", model="still")
    assert code == 0 and "out.mp4: not written" in errors and not out.exists()
    assert names(shots) == ["in.sample-0.2.png", "in.sample-0.4.png"]
    still = np.asarray(Image.open(shots / "in.sample-0.4.png"))
    assert psnr(still[:, :128], still[:, 128:]) > 28  # an untrained model is bicubic
    assert upscale(source, "--sample", shots, "--preview", "0.2")[0] == OUTPUT
    assert upscale(source, "--sample", shots, "--preview", "0.2", "-y")[0] == 0
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, image in enumerate(frames_of(5, 32, 24)):
        Image.fromarray(image).save(frames / f"{i}.png")
    assert upscale(frames, "--sample", tmp_path / "more")[0] == 0
    assert upscale(frames / "2.png", "--sample", tmp_path / "more")[0] == 0
    assert names(tmp_path / "more") == [
        *("2.sample-0.png", "frames.sample-0.02.png", "frames.sample-0.06.png", "frames.sample-0.1.png"),
        *("frames.sample-0.14.png", "frames.sample-0.16.png"),
    ]
    assert upscale(make_clip("one.mkv", frames=1), "--sample", tmp_path / "single")[0] == 0
    assert names(tmp_path / "single") == ["one.sample-0.png"]
    code, _, errors = upscale(source, "--sample", tmp_path / "late", "--preview", "60")
    assert code == INPUT and "no frame at 60 seconds" in errors


def test_wishes_that_make_no_sense_together(make_clip, upscale, tmp_path):
    source, out, shots = make_clip(frames=3), tmp_path / "out.mp4", tmp_path / "shots"
    Image.fromarray(frames_of(1, 32, 24)[0]).save(tmp_path / "photo.png")
    before = names(tmp_path)
    cases = {
        (source, "-o", out, "--preview", "0", "--start", "1"): "--start",
        (source, "-o", out, "--preview", "0", "--skip-existing"): "--skip-existing",
        (source, "-o", tmp_path / "folder", "--preview", "0"): "--preview writes videos",
        (source, "-o", out, "--preview", "0,soon"): "--preview soon",
        (source, "--preview", "0"): "-o",
        (source, source.with_name("photo.png"), "-o", tmp_path, "--preview", "0"): "single input",
        (source, source.with_name("photo.png"), "--sample", shots): "single input",
        (tmp_path / "photo.png", "-o", out, "--preview", "0"): "still image",
        (tmp_path / "photo.png", "--sample", shots, "--preview", "0"): "still image",
        (source, "--sample", shots, "--skip-existing"): "--skip-existing",
        (source, "--sample", shots, "--work-dir", tmp_path): "--work-dir",
        (source, "--sample", shots, "--pix-fmt", "yuv444p"): "--pix-fmt",
        (source, "--sample", shots, "--encoder-option", "g=1"): "--encoder-option",
        (source, "--sample", shots, "--preview", "0", "--duration", "1"): "--duration",
    }
    for words, sign in cases.items():
        code, said, errors = upscale(*words)
        assert (code, said, errors.count("\n")) == (USAGE, "", 1) and sign in errors, (words, errors)
    assert upscale(source, "--sample", source)[0] == OUTPUT
    assert names(tmp_path) == before


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_preview_of_a_picture_that_stands(ending, upscale, tmp_path):
    """The pictures of a GIF stay as long as they like; two processes make the same of it as one."""
    source = tmp_path / "in.gif"
    first, *others = [Image.fromarray(image) for image in frames_of(4, 32, 24)]
    first.save(source, save_all=True, append_images=others, duration=5000)
    out, other = tmp_path / f"out.{ending}", tmp_path / f"other.{ending}"
    words = ("--preview", "2,4,18,30", "--json")
    code, said, _ = upscale(source, "-o", out, *words)
    results = json.loads(said)["results"]
    assert code == INPUT and [result.get("frames") for result in results] == [1, 2, 1, None]
    assert "no frames between" in results[-1]["error"]
    for start, shown in ((2, [0]), (4, [0, 1]), (18, [0])):
        path = tmp_path / f"out.preview-{start}.{ending}"
        with av.open(str(path)) as container:
            times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
            assert [float(time) for time in times] == shown
            assert abs(container.duration / 1e6 - 2) < 0.05
    assert upscale(source, "-o", other, *words, "--device", "cpu,cpu")[0] == INPUT
    for start in (2, 4, 18):
        made = [tmp_path / f"{stem}.preview-{start}.{ending}" for stem in ("out", "other")]
        assert made[0].read_bytes() == made[1].read_bytes()


def test_names_that_are_too_long_for_stills_leave_no_folder(make_clip, upscale, tmp_path):
    source = make_clip("n" * 250 + ".mkv", frames=1)
    code, _, errors = upscale(source, "--sample", tmp_path / "shots")
    assert code == OUTPUT and errors.count("\n") == 1 and not (tmp_path / "shots").exists()


def test_moments_of_one_name_are_one(make_clip, upscale, tmp_path):
    code, said, _ = upscale(make_clip(frames=5), "--sample", tmp_path / "shots", "--preview", "0.1,0.1001", "--json")
    assert code == 0 and len(json.loads(said)["samples"]) == 1
