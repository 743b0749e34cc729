"""`sdatc upscale` from file to file with a tiny model: the whole real path, its outputs opened again."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sdatc_cli.app import run
from sdatc_cli.engine import device
from sdatc_cli.media.evidence import evidence
from sdatc_cli.media.probe import probe
from tests.conftest import frames_of, texture, write_clip

FAST = ("--steps", "2")


def sdatc(*words: object) -> int:
    return run([str(word) for word in words])


@pytest.fixture
def upscale(tiny_models, capfd):
    """Runs the command with a tiny model and checks that it ends well; returns the JSON it printed."""

    def call(source: Path, out: Path, *words: object, model: str = "lively") -> dict:
        capfd.readouterr()
        code = sdatc("upscale", source, "-o", out, "--model", tiny_models[model], *FAST, "--json", *words)
        said = capfd.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)

    return call


def pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[tuple[int, bytes, Fraction]]:
    """(stream, payload, time in seconds) of all packets of a kind of stream."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        return [
            (streams.index(p.stream), bytes(p), p.pts * p.time_base)
            for p in container.demux(streams)
            if p.size and p.pts is not None
        ]


@pytest.mark.parametrize(
    ("words", "steps", "solver", "mirror"),
    [
        ((), 50, "ddpm", True),
        (("--fast",), 2, "dpmpp", False),
        (("--fast", "--steps", "3", "--solver", "ddpm"), 3, "ddpm", False),
    ],
)
def test_fast_stands_for_settings(words, steps, solver, mirror, make_clip, tiny_models, tmp_path, capfd):
    source, out = make_clip(frames=1), tmp_path / "out.mkv"
    assert sdatc("upscale", source, "-o", out, "--model", tiny_models["still"], "--json", *words) == 0
    restored = json.loads(capfd.readouterr().out)["options"]["restore"]
    assert (restored["steps"], restored["solver"], restored["mirror"]) == (steps, solver, mirror)


def test_a_format_that_the_cpu_only_imitates_is_told(make_clip, tiny_models, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(device, "imitated", lambda dtype, where: dtype == torch.float16)
    source, words = make_clip(frames=1), ("--model", tiny_models["still"], *FAST, "--device", "cpu", "-y")
    for dtype in ("fp32", "fp16"):
        assert sdatc("upscale", source, "-o", tmp_path / "out.mkv", *words, "--dtype", dtype) == 0
        assert ("note: this CPU only imitates fp16" in capfd.readouterr().err) == (dtype == "fp16")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def test_a_clip_becomes_four_times_larger_with_its_sound(make_clip, upscale, tmp_path):
    source, out = make_clip(frames=9, sound=True), tmp_path / "out.mkv"
    result = upscale(source, out, model="still")
    before, after = pictures(source), pictures(out)
    assert len(after) == len(before) == result["frames"] == 9
    assert {p.shape for p in after} == {(96, 128, 3)}
    assert (result["input_size"], result["output_size"]) == ([32, 24], [128, 96])
    assert packets(source, "audio") == packets(out, "audio") != []
    for small, large in zip(before, after, strict=True):
        bicubic = cv2.resize(small, (128, 96), interpolation=cv2.INTER_CUBIC)
        assert psnr(large, bicubic) > 28  # an untrained model is bicubic
    assert result["peak_memory_bytes"]["host"] > 0 and result["seconds"] > 0


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.webm", "out.avi", "out.ts"])
def test_the_ending_chooses_the_container(name, make_clip, upscale, tmp_path):
    codec = ("--codec", "libvpx-vp9", "--preset", "fast") if name.endswith("webm") else ()
    upscale(make_clip(frames=5), tmp_path / name, *codec)
    assert [p.shape for p in pictures(tmp_path / name)] == [(96, 128, 3)] * 5


@pytest.mark.parametrize(("scale", "size"), [(2, (48, 64)), (3, (72, 96))])
def test_smaller_scales_are_reduced_from_four(scale, size, make_clip, upscale, tmp_path):
    source = make_clip(frames=2)
    upscale(source, tmp_path / "small.mkv", "--scale", scale, "--codec", "ffv1")
    upscale(source, tmp_path / "large.mkv", "--codec", "ffv1")
    for small, large in zip(pictures(tmp_path / "small.mkv"), pictures(tmp_path / "large.mkv"), strict=True):
        assert small.shape[:2] == size
        reduced = Image.fromarray(large).resize(size[::-1], Image.Resampling.LANCZOS)
        assert psnr(small, np.asarray(reduced)) > 30


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (41, 16)])
def test_short_videos_and_odd_sizes(count, size, make_clip, upscale, tmp_path):
    width, height = size
    upscale(make_clip(frames=count, width=width, height=height), tmp_path / "out.mkv")
    assert [p.shape for p in pictures(tmp_path / "out.mkv")] == [(4 * height, 4 * width, 3)] * count


def test_runs_are_deterministic_and_the_seed_matters(make_clip, upscale, tmp_path):
    source = make_clip(frames=6)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        upscale(source, tmp_path / f"{name}.mkv", "--seed", seed)
    a, b, c = (packets(tmp_path / f"{name}.mkv", "video") for name in "abc")
    assert a == b != c


def test_the_network_is_told_how_coarsely_the_input_was_compressed(make_clip, upscale, ffmpeg, tmp_path):
    source, out = make_clip(frames=3), [tmp_path / f"{i}.mkv" for i in range(4)]
    found = upscale(source, out[0])["options"]["restore"]["quantiser"]
    assert found == evidence(probe(source)).quantiser and 5 < found < 20, "x264 at CRF 12"
    upscale(source, out[1], "--quantiser", repr(found))
    upscale(source, out[2], "--quantiser", "40")
    assert upscale(source, out[3], "--quantiser", "none")["options"]["restore"]["quantiser"] is None
    told, by_hand, coarse, untold = (packets(path, "video") for path in out)
    assert told == by_hand and told != coarse and told != untold

    for codec, options in {
        "libx265": ["-x265-params", "log-level=none"],
        "libsvtav1": ["-preset", "12"],
        "mjpeg": [],
        "theora": [],
    }.items():
        other = tmp_path / f"{codec}.mkv"
        ffmpeg("-i", source, "-c:v", codec, *options, other)
        found = upscale(other, tmp_path / f"of-{codec}.mkv")["options"]["restore"]["quantiser"]
        told = evidence(probe(other)).quantiser
        assert found == told or (told is None and codec == "theora" and 0 <= found <= 51)


def test_a_part_is_the_same_as_that_part_of_the_whole(make_clip, upscale, tmp_path):
    source = make_clip(frames=24, sound=True)
    upscale(source, tmp_path / "whole.mkv", "--codec", "ffv1")
    result = upscale(source, tmp_path / "part.mkv", "--codec", "ffv1", "--start", "0.24", "--duration", "0:00.56")
    assert result["frames"] == 14
    whole, part = pictures(tmp_path / "whole.mkv"), pictures(tmp_path / "part.mkv")
    # The first clip begins, and the last one ends, elsewhere; between them the clips are the same.
    assert all(np.array_equal(a, b) for a, b in zip(part[5:-5], whole[11:-9], strict=True))
    spans = packets(tmp_path / "part.mkv", "audio")
    assert 0.5 < float(spans[-1][2] - spans[0][2]) < 0.7


def test_images_and_folders_of_frames(upscale, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, image in enumerate(frames_of(6, 32, 24)):
        Image.fromarray(image).save(frames / f"{i + 8:03d}.png")
    upscale(frames, tmp_path / "large")
    names = sorted(p.name for p in (tmp_path / "large").iterdir())
    assert len(names) == 6 and all(Image.open(tmp_path / "large" / n).size == (128, 96) for n in names)
    upscale(frames, tmp_path / "large.mp4")
    assert len(pictures(tmp_path / "large.mp4")) == 6
    upscale(frames / "008.png", tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").size == (128, 96)


def test_options_that_mean_nothing_for_a_picture_are_named(upscale, tmp_path):
    source = tmp_path / "in.png"
    Image.fromarray(frames_of(1, 32, 24)[0]).save(source)
    told = upscale(source, tmp_path / "out.png", "--start", "5", "--crf", "3", "--preset", "medium", "--codec", "ffv1")
    assert any(line.startswith("--start, --codec, --crf: without effect") for line in told["notices"])


def test_deep_images_stay_deep(upscale, tmp_path):
    deep = texture(24, 32).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    upscale(tmp_path / "deep.png", tmp_path / "out.png", model="still")
    out = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    assert out is not None and out.dtype == np.uint16 and out.shape == (96, 128, 3)
    assert len(np.unique(out)) > 256


def test_a_rich_mkv_keeps_every_stream(upscale, ffmpeg, tmp_path):
    """Two sound tracks, subtitles, chapters, an attachment, tags and uneven timestamps, stream by stream."""
    source, out = tmp_path / "rich.mkv", tmp_path / "out.mkv"
    _rich_mkv(source, ffmpeg, tmp_path)
    result = upscale(source, out)
    with av.open(str(source)) as a, av.open(str(out)) as b:
        assert [s.type for s in a.streams] == [s.type for s in b.streams]
        assert [s.type for s in b.streams] == ["video", "audio", "audio", "subtitle", "attachment"]
        for before, after in zip(a.streams, b.streams, strict=True):
            assert before.metadata.get("language") == after.metadata.get("language")
            assert before.disposition == after.disposition
        assert [(c["start"] * c["time_base"], c["metadata"]) for c in a.chapters()] == [
            (c["start"] * c["time_base"], c["metadata"]) for c in b.chapters()
        ]
        assert len(b.chapters()) == 2 and b.metadata["title"] == "A title"
    for kind in ("audio", "subtitle"):
        assert packets(source, kind) == packets(out, kind) != []
    times = [sorted(t for _, _, t in packets(path, "video")) for path in (source, out)]
    assert times[0] == times[1] and len(times[1]) == result["frames"]
    assert len({b - a for a, b in zip(times[1], times[1][1:], strict=False)}) > 1  # uneven
    assert result["notices"] == []


def _rich_mkv(path: Path, ffmpeg, folder: Path) -> None:
    write_clip(folder / "pan.mkv", frames=30, scenes=2)
    (folder / "words.srt").write_text(
        "1\n00:00:00,200 --> 00:00:00,700\nHello\n\n2\n00:00:00,800 --> 00:00:01,100\nBye\n"
    )
    (folder / "tags.txt").write_text(
        ";FFMETADATA1\ntitle=A title\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=500\nEND=1200\ntitle=Two\n"
    )
    (folder / "note.txt").write_text("an attachment")
    sine = "sine=frequency={}:sample_rate=48000:duration=1.2"
    ffmpeg(
        *("-i", folder / "pan.mkv", "-f", "lavfi", "-i", sine.format(440), "-f", "lavfi", "-i", sine.format(880)),
        *("-i", folder / "words.srt", "-i", folder / "tags.txt", "-map", "0:v", "-map", "1:a", "-map", "2:a"),
        *("-map", "3:s", "-map_metadata", "4", "-map_chapters", "4", "-vf", "select='not(eq(mod(n,5),2))'"),
        *("-fps_mode", "vfr", "-c:v", "libx264", "-c:a:0", "aac", "-c:a:1", "libmp3lame", "-c:s", "srt"),
        *("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra", "-metadata:s:s:0", "language=deu"),
        *("-attach", folder / "note.txt", "-metadata:s:4", "mimetype=text/plain", path),
    )


def test_scene_cuts_do_not_bleed(make_clip, upscale, tmp_path):
    """The half of a clip before a cut is restored as if it were alone."""
    source = make_clip(frames=12, scenes=2)
    upscale(source, tmp_path / "both.mkv", "--codec", "ffv1")
    upscale(source, tmp_path / "half.mkv", "--codec", "ffv1", "--duration", 6 / 25)
    both, half = pictures(tmp_path / "both.mkv"), pictures(tmp_path / "half.mkv")
    assert all(np.array_equal(a, b) for a, b in zip(both[:6], half, strict=True))


def test_progress_is_plain_lines_off_a_terminal_and_quiet_is_quiet(make_clip, tiny_models, tmp_path, capfd):
    source = make_clip(frames=5)
    words = ["upscale", source, "-o", tmp_path / "out.mp4", "--model", tiny_models["still"], *FAST]
    assert sdatc(*words) == 0
    said = capfd.readouterr()
    assert said.out == "" and "\x1b" not in said.err and "\r" not in said.err
    assert "restoring: 5/5 frames" in said.err
    closing = said.err.splitlines()[-1]
    assert all(part in closing for part in ("5 frames", "32x24 -> 128x96", " fps", "peak memory"))
    assert sdatc(*words, "-y", "--quiet") == 0
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_shown_on_a_terminal(make_clip, tiny_models, tmp_path):
    """Under a pseudo-terminal the progress is Rich's, and stdout still holds JSON alone."""
    import os
    import pty
    import sys

    ours, theirs = pty.openpty()
    words = ["upscale", str(make_clip(frames=5)), "-o", str(tmp_path / "out.mp4"), "--model", str(tiny_models["still"])]
    with subprocess.Popen(
        [sys.executable, "-m", "sdatc_cli", *words, *FAST, "--json"], stdout=subprocess.PIPE, stderr=theirs
    ) as program:
        os.close(theirs)
        assert program.stdout is not None
        result = json.loads(program.stdout.read())
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    assert result["frames"] == 5
    assert b"5/5" in shown and b"\x1b[" in shown


def _read(handle: int) -> bytes:
    import os

    try:
        return os.read(handle, 4096)
    except OSError:  # the other end is closed
        return b""


def test_real_footage(shared, upscale, ffmpeg, tmp_path):
    """A real clip: every frame, four times the size, near to the original where an untrained model is bicubic."""
    small = tmp_path / "small.mp4"
    source = shared / "data" / "train_video" / "davis_dog.mp4"
    ffmpeg("-i", source, "-vf", "scale=96:54:flags=bicubic", "-frames:v", 10, "-crf", 18, small)
    upscale(small, tmp_path / "out.mp4", model="still")
    before, after = pictures(small), pictures(tmp_path / "out.mp4")
    assert len(before) == len(after) == 10
    for a, b in zip(before, after, strict=True):
        assert psnr(b, cv2.resize(a, (384, 216), interpolation=cv2.INTER_CUBIC)) > 28


def test_a_link_as_output_leads_to_where_the_video_goes(make_clip, upscale, tmp_path):
    (tmp_path / "large").mkdir()
    real, link = tmp_path / "large" / "real.mkv", tmp_path / "out.mkv"
    real.write_bytes(b"an earlier one")
    link.symlink_to(real)
    upscale(make_clip(frames=2), link, "-y", model="still")
    assert link.is_symlink() and len(pictures(real)) == 2
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["real.mkv"]
    link.unlink()
    link.symlink_to(tmp_path / "gone" / "real.mkv")
    assert sdatc("upscale", tmp_path / "in.mkv", "-o", link, "-y") == 6


def test_frames_get_the_rate_that_was_asked_for(upscale, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in enumerate(frames_of(6, 32, 24)):
        Image.fromarray(image).save(folder / f"{number}.png")
    upscale(folder, tmp_path / "out.mkv", "--fps", "5", "--start", "0.6", model="still")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].average_rate == 5
        assert len(list(container.decode(video=0))) == 3
    whole = upscale(folder, tmp_path / "whole.mkv", "--work-dir", tmp_path / "not" / "yet", model="still")
    assert whole["frames"] == 6


def test_a_video_keeps_its_own_times(make_clip, tiny_models, tmp_path, capfd):
    source = make_clip(frames=2)
    assert sdatc("upscale", source, "-o", tmp_path / "o.mkv", "--fps", "5", "--model", tiny_models["still"]) == 2
    assert "--fps is for folders of frames" in capfd.readouterr().err
    for rate in ("0", "-5", "1e9", "fast", "2000"):
        assert sdatc("upscale", source, "-o", tmp_path / "o.mkv", f"--fps={rate}") == 2


def test_frames_of_two_depths_look_alike(upscale, tmp_path):
    """Of one picture in 8 and in 16 bits, whatever the first one has."""
    for first in (8, 16):
        folder = tmp_path / f"first{first}"
        folder.mkdir()
        for number, image in enumerate(frames_of(4, 32, 24)):
            deep = (number % 2 == 0) == (first == 16)
            cv2.imwrite(str(folder / f"{number}.png"), (image.astype(np.uint16) * 257 if deep else image)[..., ::-1])
        result = upscale(folder, tmp_path / f"out{first}.mkv", model="still")
        assert any(f"2 frames brought to {first} bits" in line for line in result["notices"])
        for small, large in zip(frames_of(4, 32, 24), pictures(tmp_path / f"out{first}.mkv"), strict=True):
            assert psnr(large, cv2.resize(small, (128, 96), interpolation=cv2.INTER_CUBIC)) > 28


def test_a_link_gets_the_kind_of_picture_that_its_own_name_says(upscale, tmp_path):
    Image.fromarray(texture(24, 32)).save(tmp_path / "in.png")
    for name in ("plain", "other.jpg"):
        (tmp_path / "out.png").unlink(missing_ok=True)
        (tmp_path / "out.png").symlink_to(tmp_path / name)
        upscale(tmp_path / "in.png", tmp_path / "out.png", "-y", model="still")
        assert Image.open(tmp_path / name).format == "PNG"


def test_json_on_a_terminal_without_the_letters(make_clip, tiny_models, tmp_path):
    source, out = make_clip("日é😀.mkv", frames=2), tmp_path / "out.mkv"
    words = ("upscale", source, "-o", out, "--model", tiny_models["still"], *FAST, "--json")
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "sdatc_cli", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("latin-1"))["input"] == str(source)
