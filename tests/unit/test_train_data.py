"""Shards of training data: prepared once, the same each time, refused when they are not what they should be."""

import errno
import hashlib
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sdatc_cli.errors import InputError, OutputError
from sdatc_cli.train.clips import VIDEO_SUFFIXES, find_files
from sdatc_cli.train.degradation import reduce_clip
from sdatc_cli.train.prepare import PreparePlan, parts, prepare
from sdatc_cli.train.shards import Shard, open_shards
from tests.conftest import texture
from tests.unit.train_helpers import PLAN, ignore, make_shards, photo_folder, psnr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data"))


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


def test_a_shard_holds_clips_and_their_damaged_versions(made: Path) -> None:
    (shard,) = open_shards(made)
    assert shard.lq.shape[1:] == (5, 32, 32, 3) and len(shard) > 4
    for clip in range(len(shard)):
        hr = np.stack([shard.hr_frame(clip, i) for i in range(5)])
        assert hr.shape == (5, 128, 128, 3)
        assert 15 < psnr(reduce_clip(hr, "bicubic"), shard.lq[clip]) < 60


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
