"""Clips for training: how they move, and how they are damaged."""

import gc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdatc_cli.errors import InputError, OutputError
from sdatc_cli.train.clips import photo_clip, sharpened, video_frames
from sdatc_cli.train.degradation import Damage, compress, random_damage, reduce_clip
from sdatc_cli.train.prepare import prepare
from tests.conftest import texture, write_clip
from tests.unit.train_helpers import PLAN, ignore, psnr


def refusal(*arguments: object, **more: object) -> str:
    with pytest.raises((InputError, OutputError)) as caught:
        prepare(*arguments, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_clip_shows_from_a_little_to_nearly_all_of_a_photo() -> None:
    """The photo's grey level is its place from left to right, so that a clip's levels tell how much of it is seen."""
    photo = np.repeat(np.tile(np.linspace(0, 255, 1024).astype(np.uint8), (1024, 1))[..., None], 3, axis=2)
    rng = np.random.default_rng(0)
    shares = [float(np.ptp(photo_clip(photo, 1, 128, rng).astype(float))) / 255 for _ in range(60)]
    assert min(shares) < 0.3 and max(shares) > 0.8
    assert photo_clip(photo[:100, :100], 2, 128, rng).shape == (2, 128, 128, 3)  # smaller than the view: reflected


def test_most_clips_are_sharpened_and_keep_their_brightness() -> None:
    clip, rng = np.stack([np.clip(texture(96, 96), 60, 190)] * 2), np.random.default_rng(0)
    made = [sharpened(clip, rng) for _ in range(100)]
    same = [np.array_equal(m, clip) for m in made]
    assert 25 <= sum(same) <= 55
    steps = float(np.abs(np.diff(clip.astype(float), axis=2)).mean())
    for changed in (m for m, is_same in zip(made, same, strict=True) if not is_same):
        assert changed.shape == clip.shape and changed.dtype == np.uint8
        assert np.abs(np.diff(changed.astype(float), axis=2)).mean() > 1.05 * steps
        assert abs(changed.mean() - clip.mean()) < 3
    flat = np.full((2, 32, 32, 3), 99, np.uint8)
    assert all(np.array_equal(sharpened(flat, rng), flat) for _ in range(10))


def test_runs_of_frames_end_where_their_size_changes(tmp_path: Path) -> None:
    """As in a broadcast; a video that is too short is not called too small."""
    content = b""
    for count, width in ((20, 96), (17, 64), (10, 96)):
        part = write_clip(tmp_path / "part.ts", frames=count, width=width, height=48)
        content += part.read_bytes()
    (tmp_path / "change.mkv").write_bytes(content)
    runs = [run.shape for run in video_frames(tmp_path / "change.mkv", 0.0, 15)]
    assert runs == [(15, 48, 96, 3), (15, 48, 64, 3)]
    (tmp_path / "change.mkv").write_bytes(part.read_bytes())
    told = refusal(None, tmp_path, tmp_path / "out", PLAN, ignore)
    where = tmp_path / "change.mkv"
    assert told == f"nothing usable: fewer than 15 frames of one size in a row: {where}, nor in 1 more"


@given(st.integers(0, 2**31), st.integers(1000, 500_000))
def test_damage_is_drawn_from_the_stated_ranges(seed: int, pixels: int) -> None:
    damage = random_damage(np.random.default_rng(seed), pixels)
    assert (damage.crf is None) != (damage.bitrate is None)
    if damage.crf is not None:
        assert 10 <= damage.crf <= 40 and damage.codec != "mpeg4"
    if damage.bitrate is not None:
        assert damage.bitrate == 2000 or 1e4 <= damage.bitrate * 320 * 180 / pixels * 1.001 + 64 <= 1.01e5 + 64


@pytest.mark.parametrize("codec, crf, bitrate", [("libx264", 30, None), ("libx265", 30, None), ("mpeg4", None, 60_000)])
def test_every_codec_really_damages(codec: str, crf: int | None, bitrate: int | None) -> None:
    clip = np.stack([texture(64, 96)] * 4)
    out, quantiser = compress(clip, Damage("bicubic", codec, crf, bitrate, 25))
    assert out.shape == clip.shape
    assert 18 < psnr(out, clip) < 45
    assert quantiser is not None and 15 < quantiser < 45


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list a process's threads")
def test_codecs_leave_no_threads_behind() -> None:
    """PyAV's decoders and frames wait for Python's collector; thousands of clips must not wait with their threads."""
    clip = np.stack([texture(64, 96)] * 4)
    compress(clip, Damage("bicubic", "libx264", 30, None, 25))
    gc.disable()
    try:
        before = len(list(Path("/proc/self/task").iterdir()))
        for codec in ("libx264", "libx265"):
            compress(clip, Damage("bicubic", codec, 30, None, 25))
        assert len(list(Path("/proc/self/task").iterdir())) <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("kernel", ["bicubic", "area", "gaussian", "lanczos"])
def test_every_kernel_keeps_the_picture_in_place(kernel: str) -> None:
    soft = cv2.GaussianBlur(texture(96, 128), (0, 0), 5)
    small = reduce_clip(soft[None], kernel)[0]
    assert small.shape == (24, 32, 3)
    centred = cv2.resize(soft, (32, 24), interpolation=cv2.INTER_AREA)
    assert psnr(small, centred) > (30 if kernel == "gaussian" else 40)
