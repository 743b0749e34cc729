"""Finding clips, checking them, and reading them bit-exactly."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdatc_cli.bench import datasets, methods
from sdatc_cli.errors import InputError, UsageError
from sdatc_cli.media.images import eight_bits
from tests.conftest import texture
from tests.media.clips import write_video


def write_frames(folder: Path, count: int, height: int = 64, width: int = 64, first: int = 0) -> Path:
    folder.mkdir(parents=True)
    image = Image.fromarray(texture(height, width, 1))
    for k in range(count):
        image.save(folder / f"{first + k:04d}.png")
    return folder


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A "known" set of two clips of 3 frames of 64x72."""
    known = datasets.KnownSet("Small", "https://example.org/small", {"a": 3, "b": 3}, (64, 72), {"000": "a"})
    monkeypatch.setitem(datasets.KNOWN, "small", known)


@pytest.mark.parametrize("inner", ["", "GT", "Small/GT", "small", "Small/train_sharp"])
def test_the_usual_layouts_are_found(tmp_path: Path, small_set: None, inner: str) -> None:
    write_frames(tmp_path / inner / "000", 3, 72)
    write_frames(tmp_path / inner / "b" / "truth", 3, 72)
    found = datasets.find("small", tmp_path)
    assert [(clip.name, clip.frames) for clip in found.clips] == [("a", 3), ("b", 3)]
    frames = found.clips[0].read()
    assert len(frames) == 3
    assert np.array_equal(frames[2], texture(72, 64, 1)), "PNGs are read bit-exactly"
    assert len(found.clips[1].read(2)) == 2


def test_a_missing_set_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        datasets.find("vid4", tmp_path)
    for part in ("github.com/yhjo09/VSR-DUF", "calendar 41", "walk 47", "CLIP/*.png", "no clip calendar, city"):
        assert part in str(told.value)
    with pytest.raises(InputError, match=r"REDS4.*reds\.html.*020 100"):
        datasets.find("reds4", tmp_path)
    with pytest.raises(InputError, match=r"UDM10.*PFNL.*polyflow 32"):
        datasets.find("udm10", tmp_path)


def test_one_missing_clip_is_named(tmp_path: Path, small_set: None) -> None:
    write_frames(tmp_path / "a", 3, 72)
    with pytest.raises(InputError, match="no clip b under"):
        datasets.find("small", tmp_path)


def test_missing_frames_are_named(tmp_path: Path, small_set: None) -> None:
    write_frames(tmp_path / "a", 3, 72)
    write_frames(tmp_path / "b", 5, 72)
    for number in (1, 3):
        (tmp_path / "b" / f"000{number}.png").unlink()
    with pytest.raises(InputError, match=r"clip b: 2 of its frames are missing \(1, 3\)"):
        datasets.find("small", tmp_path)


def test_wrong_counts_and_sizes_are_told(tmp_path: Path, small_set: None) -> None:
    write_frames(tmp_path / "a", 3, 64)
    write_frames(tmp_path / "b", 2, 72)
    with pytest.raises(InputError, match="clip b: 2 frames, expected 3"):
        datasets.find("small", tmp_path)
    write_frames(tmp_path / "c" / "a", 3, 64)
    write_frames(tmp_path / "c" / "b", 3, 72)
    with pytest.raises(InputError, match="clip a: 64x64, expected 64x72"):
        datasets.find("small", tmp_path / "c").clips[0].read()


def test_any_folder_of_clips_is_a_dataset(tmp_path: Path) -> None:
    write_frames(tmp_path / "one", 2, 70, 77, first=5)
    write_frames(tmp_path / "two", 4)
    (tmp_path / "notes.txt").write_text("not a clip")
    found = datasets.find(str(tmp_path), None)
    assert [(clip.name, clip.frames) for clip in found.clips] == [("one", 2), ("two", 4)]
    frame = found.clips[0].read()[0]
    assert frame.shape == (64, 72, 3), "edges are cropped to a multiple of 8"
    assert np.array_equal(frame, texture(70, 77, 1)[:64, :72])


def test_what_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown dataset 'vid5': use vid4, reds4, udm10, or a folder"):
        datasets.find("vid5", tmp_path)
    with pytest.raises(InputError, match="no clips in"):
        datasets.find(str(tmp_path), None)


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "one", 2)
    Image.fromarray(texture(80, 64, 1)).save(folder / "0002.png")
    with pytest.raises(InputError):
        datasets.find(str(tmp_path), None).clips[0].read()


def test_a_turned_video_is_read_upright(tmp_path: Path) -> None:
    """As ground truth and as a candidate: the compressed copy that it is compared with is upright."""
    stored = texture(64, 96, 1)
    video = write_video(tmp_path / "one.mkv", [stored] * 2, codec="ffv1", pix_fmt="bgr0", display=(90, False))
    (frame, _) = datasets.find(str(tmp_path), None).clips[0].read()
    assert np.array_equal(frame, np.rot90(stored))
    (tmp_path / "crf25").mkdir()
    shutil.copy(video, tmp_path / "crf25/one.mkv")
    job = methods.Job("one", 25, [frame[::4, ::4]] * 2, (0, 1), 2)
    assert np.array_equal(dict(methods.Candidate("other", tmp_path).restore(job))[1], frame)


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "one", 2)
    clip = datasets.find(str(tmp_path), None).clips[0]
    before = clip.digest()
    assert clip.digest() == before
    Image.fromarray(texture(64, 64, 9)).save(folder / "0001.png")
    assert clip.digest() != before


def test_sixteen_bits_are_rounded_to_eight() -> None:
    deep = np.array([[[0, 128, 129], [257, 65535, 65406]]], np.uint16)
    assert eight_bits(deep).tolist() == [[[0, 0, 1], [1, 255, 254]]]


def test_vid4_is_read_whole(shared: Path) -> None:
    if not (shared / "data/vid4").is_dir():
        pytest.skip("no Vid4 beside the repository")
    found = datasets.find("vid4", shared / "data/vid4")
    assert {clip.name: clip.read(2)[1].shape for clip in found.clips} == {
        "calendar": (576, 720, 3),
        "city": (576, 704, 3),
        "foliage": (480, 720, 3),
        "walk": (480, 720, 3),
    }
