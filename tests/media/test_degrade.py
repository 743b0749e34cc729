"""`sdatc degrade` and what it is made of."""

import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdatc_cli.app import run
from sdatc_cli.errors import DeviceError, InputError, OutputError, UsageError
from sdatc_cli.media import ffmpeg as program
from sdatc_cli.media.degrade import KERNELS, Recipe, Steps, degrade, reduce_frame
from sdatc_cli.media.ffmpeg import ffmpeg_binary
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import Frame
from tests.media.clips import footage, leftovers, place_of_red, read_all, red_bar, take_apart, times, write_video


def decoded(path: Path) -> list[np.ndarray]:
    """Planes as the decoder gives them."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def reference(images: list[np.ndarray], crf: int, out: Path) -> Path:
    """The paper's protocol in its plainest words: crop to 8, Pillow's bicubic, raw frames at 25 fps into x264."""
    height, width = (edge // 8 * 8 for edge in images[0].shape[:2])
    small = [Image.fromarray(i[:height, :width]).resize((width // 4, height // 4), Image.Resampling.BICUBIC)
             for i in images]  # fmt: skip
    command = [ffmpeg_binary(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s",
               f"{width // 4}x{height // 4}", "-r", "25", "-i", "-", "-c:v", "libx264", "-crf", str(crf),
               "-pix_fmt", "yuv420p", str(out)]  # fmt: skip
    subprocess.run(command, input=b"".join(i.tobytes() for i in small), check=True)
    return out


def test_the_papers_protocol_is_reproduced_exactly(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(12, 203, 141), codec="ffv1", pix_fmt="bgr0")
    degrade(source, tmp_path / "out.mp4", Recipe(crf=25))
    wanted = decoded(reference(footage(12, 203, 141), 25, tmp_path / "ref.mp4"))
    got = decoded(tmp_path / "out.mp4")
    assert len(got) == 12 and all((a == b).all() for a, b in zip(wanted, got, strict=True))


@pytest.mark.parametrize("clip", ["walk"])
def test_on_vid4(clip, shared, tmp_path):
    source = shared / "data" / "vid4" / f"{clip}.mkv"
    if not source.is_file():
        pytest.skip("no Vid4 here")
    degrade(source, tmp_path / "out.mp4", Recipe(crf=25), frames=5)
    images = [f.image for f in read_all(source, duration=0.2)[1]]
    wanted = decoded(reference(images, 25, tmp_path / "ref.mp4"))
    assert all((a == b).all() for a, b in zip(wanted, decoded(tmp_path / "out.mp4"), strict=True))


def test_the_note_makes_it_again(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(6, 144, 96), codec="ffv1", pix_fmt="bgr0")
    note = degrade(source, tmp_path / "out.mkv", Recipe(crf=31, kernel="gaussian"))
    assert note == tmp_path / "out.mkv.json"
    told = json.loads(note.read_text())
    assert told["output"]["frames"] == 6 and told["output"]["width"] == 36 and told["cropped"]["height"] == 96
    assert told["recipe"]["kernel"] == "gaussian" and "ffmpeg version" in told["ffmpeg"]
    command = shlex.split(told["ffmpeg_command"])
    again = tmp_path / "again.mkv"
    command = [str(again) if part.endswith("out.mkv") else part for part in command]
    raw = b"".join(reduce_frame(f.image, 4, "gaussian").tobytes() for f in read_all(source)[1])
    subprocess.run([ffmpeg_binary(), *[c for c in command[1:] if c != "-nostdin"]], input=raw, check=True)
    assert decoded(again)[0].shape == decoded(tmp_path / "out.mkv")[0].shape
    assert all((a == b).all() for a, b in zip(decoded(again), decoded(tmp_path / "out.mkv"), strict=True))
    assert shlex.split(told["command"])[:2] == ["sdatc", "degrade"]


def test_the_command_in_the_note_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(Path("-in.mkv"), footage(6, 144, 96))
    note = degrade(Path("-in.mkv"), Path("out.mkv"), Recipe(), frames=3)
    command, first = shlex.split(json.loads(note.read_text())["command"]), decoded(Path("out.mkv"))
    Path("out.mkv").unlink()
    note.unlink()
    assert run(command[1:]) == 0
    assert len(first) == 3 and all((a == b).all() for a, b in zip(first, decoded(Path("out.mkv")), strict=True))


@pytest.mark.parametrize("name", ["x.webm", "dg", "dg.png"])
def test_names_that_hold_no_such_video_are_usage_errors(name, tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(2, 144, 96))
    with pytest.raises(UsageError, match=r"ends in \.mp4 or \.mkv"):
        degrade(source, tmp_path / name, Recipe())


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_codecs_and_bitrates(codec, tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(25, 256, 192))
    degrade(source, tmp_path / "crf.mp4", Recipe(crf=40, codec=codec))
    sizes = {}
    for rate in (10_000, 100_000):
        out = tmp_path / f"{rate}.mkv"
        degrade(source, out, Recipe(crf=None, bitrate=rate, codec=codec))
        sizes[rate] = sum(len(d) for _, d in take_apart(out)[0].packets)
    assert sizes[10_000] < sizes[100_000]
    assert probe(tmp_path / "crf.mp4").codec == {"libx264": "h264", "libx265": "hevc", "mpeg4": "mpeg4"}[codec]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_chroma_lies_where_it_is_read(codec, tmp_path):
    write_video(tmp_path / "in.mkv", [red_bar(128, 96)] * 3, codec="ffv1", pix_fmt="bgr0")
    degrade(tmp_path / "in.mkv", tmp_path / "out.mkv", Recipe(crf=4, scale=1, codec=codec))
    assert abs(place_of_red(read_all(tmp_path / "out.mkv")[1][1].image)) < 0.1


def test_what_is_left_out_is_told(rich_mkv, tmp_path):
    told: list[str] = []
    degrade(rich_mkv, tmp_path / "out.mkv", Recipe(scale=2), frames=2, tell=told.append)
    others = [str(s) for s in probe(rich_mkv).streams if s.kind not in ("video", "audio")]
    assert others and len(told) == 1 and all(name in told[0] for name in others)
    degrade(tmp_path / "out.mkv", tmp_path / "again.mkv", Recipe(scale=1), tell=told.append)
    assert len(told) == 1


def test_sound_is_kept_and_its_bits(rich_mkv, sound_mp4, tmp_path):
    degrade(rich_mkv, tmp_path / "out.mkv", Recipe(scale=2))
    before, after = take_apart(rich_mkv), take_apart(tmp_path / "out.mkv")
    assert [p.codec for p in after[1:]] == ["aac", "flac"]
    assert [[d for _, d in p.packets] for p in after[1:]] == [[d for _, d in p.packets] for p in before[1:3]]
    degrade(sound_mp4, tmp_path / "out.mp4", Recipe(scale=2), frames=10)
    video, audio = take_apart(tmp_path / "out.mp4")
    assert len(video.packets) == 10 and 0.3 < float(audio.packets[-1][0]) < 0.5


def test_frame_rates(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(10, 128, 96))
    degrade(source, tmp_path / "slow.mkv", Recipe(fps=Fraction(5)))
    assert np.allclose(np.diff([float(t) for t in times(tmp_path / "slow.mkv")]), 0.2)
    degrade(source, tmp_path / "fast.mkv", Recipe(fps=Fraction(50)))
    assert len(times(tmp_path / "fast.mkv")) == 20
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(footage(5, 128, 96)):
        Image.fromarray(image).save(folder / f"{i}.png")
    degrade(folder, tmp_path / "folder.mkv", Recipe(fps=Fraction(10)))
    assert times(tmp_path / "folder.mkv") == [Fraction(i, 10) for i in range(5)]


@pytest.mark.parametrize("unit", ["frames", "milliseconds", "untold"])
@pytest.mark.parametrize(
    ("before", "count", "after"), [(30, 30, 25), (60, 60, 25), (10, 10, 25), (1, 10, 250), (25, 1, 1)]
)
def test_another_frame_rate_keeps_the_length(before, count, after, unit):
    """Also where times are rounded, and where the duration of frames is not told."""
    base = Fraction(1, 1000 if unit == "milliseconds" else before)
    steps = [round(i / before / base) for i in range(count + 1)]
    lasts = 0 if unit == "untold" else round(1 / before / base)
    image = np.zeros((1, 1, 3), np.uint8)
    frames = [Frame(image, steps[i], base, i, duration=lasts) for i in range(count)]
    info = MediaInfo(Path("in.mkv"), "video", 1, 1, frame_rate=Fraction(before))
    made = [frame.index for frame in Steps(info, Fraction(25), Fraction(25)).of(frames)]
    assert len(made) == after and made[0] == 0 and made == sorted(made)


def test_progress_and_frame_limit(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(10, 128, 96))
    seen: list[tuple[int, int | None]] = []
    degrade(source, tmp_path / "out.mkv", Recipe(), frames=4, progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(times(tmp_path / "out.mkv")) == 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_keep_flat_colour_and_blur_as_they_say(kernel):
    flat = np.full((64, 72, 3), (200, 30, 90), np.uint8)
    assert (np.abs(reduce_frame(flat, 4, kernel).astype(int) - flat[0, 0]) <= 1).all()
    point = np.zeros((65, 65, 3), np.uint8)
    point[32, 32] = 255
    small = reduce_frame(point, 4, kernel)
    assert small.shape == (16, 16, 3)
    if kernel in ("gaussian", "bd"):
        sigma = {"gaussian": 1.5, "bd": 1.6}[kernel]
        line = cv2.getGaussianKernel(13, sigma)
        wanted = 255 * line[6, 0] * line[6 - 4, 0]
        assert abs(int(small[8, 9, 0]) - wanted) <= 1 and abs(int(small[8, 8, 0]) - 255 * line[6, 0] ** 2) <= 1
    if kernel == "bicubic":
        truth = Image.fromarray(point[:64, :64]).resize((16, 16), Image.Resampling.BICUBIC)
        assert (small == np.asarray(truth)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 90), st.integers(16, 90), st.integers(1, 5), st.sampled_from(KERNELS))
def test_reduced_sizes_are_even_and_cropped(width, height, scale, kernel):
    if min(width, height) < 2 * scale * 2:
        return
    small = reduce_frame(np.zeros((height, width, 3), np.uint8), scale, kernel)
    assert small.shape[:2] == (height // (2 * scale) * 2, width // (2 * scale) * 2)
    assert small.shape[0] % 2 == small.shape[1] % 2 == 0


@pytest.mark.parametrize(
    "wrong",
    [{"kernel": "magic"}, {"codec": "vp8"}, {"scale": 0}, {"crf": 99}, {"crf": None}, {"bitrate": 5}, {"fps": 0}],
)
def test_recipes_that_do_not_exist(wrong):
    with pytest.raises(UsageError):
        Recipe(**wrong)


def test_failures_leave_nothing(tmp_path, monkeypatch):
    source = write_video(tmp_path / "in.mkv", footage(4, 128, 96))
    small = write_video(tmp_path / "small.mkv", footage(2, 32, 32))
    with pytest.raises(UsageError, match="too small"):
        degrade(small, tmp_path / "out.mp4", Recipe())
    with pytest.raises(OutputError, match="ffmpeg failed"):
        degrade(source, tmp_path / "out.mp4", Recipe(preset="no-such-preset"))
    with pytest.raises(InputError):
        degrade(tmp_path / "none.mkv", tmp_path / "out.mp4", Recipe())
    with pytest.raises(UsageError):
        degrade(source, tmp_path / "out.xyz", Recipe())
    with pytest.raises(OutputError, match="is the input"):
        degrade(source, source, Recipe(), overwrite=True)

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        degrade(source, tmp_path / "out.mp4", Recipe(), progress=stop)
    degrade(source, tmp_path / "good.mp4", Recipe())
    with pytest.raises(OutputError, match="exists"):
        degrade(source, tmp_path / "good.mp4", Recipe())
    monkeypatch.setattr(program.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(DeviceError, match="ffmpeg"):
        ffmpeg_binary()
    assert leftovers(tmp_path, "in.mkv", "small.mkv", "good.mp4", "good.mp4.json") == []


def test_odd_names_reach_ffmpeg(tmp_path):
    source = write_video(tmp_path / "-in %d 'x'.mkv", footage(2, 128, 96))
    for name in ("-o.mp4", "a%03d.mkv", "new\nline.mkv", 'it\'s "q".mkv'):
        degrade(source, tmp_path / name, Recipe())
        assert len(times(tmp_path / name)) == 2


def test_whatever_the_frames_raise_ends_the_program() -> None:
    """A broken pipe too, which is not the one to the program."""
    reads_all = [sys.executable, "-c", "import sys; sys.stdin.buffer.read()"]
    ends_early = [sys.executable, "-c", "import sys; sys.exit('enough')"]

    def frames(error: type[Exception]) -> Iterator[np.ndarray]:
        yield np.zeros(1 << 20, np.uint8)
        raise error

    for error in (BrokenPipeError, ValueError):
        with pytest.raises(error):
            program.feed(reads_all, frames(error))
    with pytest.raises(OutputError, match="enough"):
        program.feed(ends_early, itertools.repeat(np.zeros(1 << 20, np.uint8)))


def test_frames_that_do_not_stay_where_they_were_are_told(tmp_path):
    """A few that lie unevenly, and damage; not what is even, or has its times kept."""
    told: list[str] = []
    uneven = write_video(tmp_path / "uneven.mkv", footage(5, 64, 64), [0, 40, 80, 1000, 1780], Fraction(1, 1000))
    degrade(uneven, tmp_path / "moved.mkv", Recipe(scale=2), tell=told.append)
    assert len(told) == 1 and "--fps keeps their times" in told[0]
    even = write_video(tmp_path / "even.mkv", footage(30, 64, 64), options={"preset": "ultrafast", "g": "5"})
    degrade(uneven, tmp_path / "kept.mkv", Recipe(scale=2, fps=Fraction(25)), tell=told.append)
    degrade(even, tmp_path / "same.mkv", Recipe(scale=2), tell=told.append)
    assert len(told) == 1 and times(tmp_path / "kept.mkv")[-1] >= Fraction(178, 100)
    content = even.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) * 6 // 10])
    degrade(tmp_path / "cut.mkv", tmp_path / "rest.mkv", Recipe(scale=2), tell=told.append)
    assert any("cut short" in line for line in told[1:])


def test_what_the_pictures_lose_is_told(tmp_path):
    colours = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    source = write_video(tmp_path / "hdr.mkv", footage(3, 64, 64), codec="libx265", pix_fmt="yuv420p10le",
                         setup=colours, options={"x265-params": "log-level=none"})  # fmt: skip
    told: list[str] = []
    degrade(source, tmp_path / "out.mkv", Recipe(scale=2), tell=told.append)
    assert len(told) == 1 and told[0].startswith("high dynamic range")


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_chapters_are_left_out(ending, rich_mkv, tmp_path):
    degrade(rich_mkv, tmp_path / f"out.{ending}", Recipe(scale=2))
    with av.open(str(tmp_path / f"out.{ending}")) as container:
        assert container.chapters() == []


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_avi_has_its_frames_one_by_one_from_the_beginning(codec, sound_mp4, tmp_path):
    degrade(sound_mp4, tmp_path / "out.avi", Recipe(scale=2, codec=codec))
    frames = read_all(tmp_path / "out.avi")[1]
    assert [frame.pts for frame in frames] == list(range(len(read_all(sound_mp4)[1])))
