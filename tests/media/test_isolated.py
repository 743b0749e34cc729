"""Decoding in another process: the same frames to the bit, and no fault of a codec ends the run."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sdatc_cli.errors import InputError
from sdatc_cli.media import isolated
from sdatc_cli.media.images import write_image
from sdatc_cli.media.isolated import IsolatedReader
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import Care, Frame, FrameReader
from tests.conftest import REPO
from tests.media.clips import footage, write_video

COUNT = 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Keyframes at 0, 10, 20; no B-frames, so that packet and frame numbers agree."""
    path = tmp_path_factory.mktemp("clip") / "in.mkv"
    return write_video(path, footage(COUNT, 96, 64), options={"preset": "ultrafast", "g": "10", "bf": "0"})


@pytest.fixture
def fault(monkeypatch):
    """Makes the decoders that are started fail, see faulty_decoder.py."""

    def strike(what: str) -> None:
        monkeypatch.setenv("FAULT", what)
        monkeypatch.setattr(isolated, "PROGRAM", "tests.media.faulty_decoder")

    return strike


def plain(path: Path, care: Care | None = None, **part: float) -> tuple[list[Frame], list[str]]:
    with FrameReader(probe(path), care=care, **part) as reader:
        return list(reader), reader.damage


def apart(path: Path, **part: float) -> tuple[list[Frame], list[str]]:
    with IsolatedReader(probe(path), **part) as reader:
        return list(reader), reader.damage


def assert_same(one: list[Frame], other: list[Frame]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.image.dtype == b.image.dtype and np.array_equal(a.image, b.image)
        assert (a.pts, a.time_base, a.index, a.name, a.duration) == (b.pts, b.time_base, b.index, b.name, b.duration)
        assert (a.alpha is None) == (b.alpha is None)
        assert a.alpha is None or (b.alpha is not None and np.array_equal(a.alpha, b.alpha))


@pytest.mark.parametrize("part", [{}, {"start": 0.5, "duration": 0.4}])
def test_video_comes_through_to_the_bit(part, clip, rich_mkv):
    for path in (clip, rich_mkv):
        assert isolated.probe(path) == probe(path)
        frames, damage = plain(path, **part)
        same, told = apart(path, **part)
        assert_same(frames, same)
        assert frames and damage == told == []


def test_damage_is_told_as_the_plain_reader_tells_it(clip, tmp_path):
    data = bytearray(clip.read_bytes()[: clip.stat().st_size * 8 // 10])
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(data)
    frames, damage = plain(bad)
    same, told = apart(bad)
    assert_same(frames, same)
    assert damage == told and damage


def test_deep_pictures_with_opacity_come_through(tmp_path):
    rng = np.random.default_rng(3)
    for i in range(3):
        image = rng.integers(0, 65536, (24, 32, 3), np.uint16)
        write_image(tmp_path / f"{i}.png", image, rng.integers(0, 65536, (24, 32), np.uint16))
    (tmp_path / "1.png").write_bytes(b"\x89PNG and no more")
    frames, damage = plain(tmp_path)
    same, told = apart(tmp_path)
    assert_same(frames, same)
    assert len(frames) == 2 and frames[0].alpha is not None and damage == told


def test_errors_keep_their_class_and_words(clip, tmp_path):
    info = probe(clip)
    gone = tmp_path / "gone.mkv"
    for call in (probe, isolated.probe):
        with pytest.raises(InputError, match=r"gone\.mkv: no such file"):
            call(gone)
    gone.write_bytes(clip.read_bytes())
    other = probe(gone)
    gone.unlink()
    with pytest.raises(InputError, match="no such file"), IsolatedReader(other) as reader:
        list(reader)
    assert info.width == 96


@pytest.mark.parametrize("kind", ["crash", "abort"])
def test_a_packet_that_crashes_the_codec_is_left_out_and_told(kind, fault, clip):
    fault(f"{kind} 17")
    frames, damage = apart(clip)
    expected, _ = plain(clip, Care(left_out=frozenset({17}), threads=False))
    assert_same(expected, frames)
    assert 0 < COUNT - len(frames) <= 1
    name = {"crash": "SIGSEGV", "abort": "SIGABRT"}[kind]
    assert any("1 packets were left out" in line and "0.68 s" in line for line in damage), damage
    assert any(name in line and "2 times" in line for line in damage), damage
    assert all("\n" not in line for line in damage)


def test_a_decoder_that_is_killed_once_loses_nothing(fault, clip, tmp_path):
    fault(f"killed 20 {tmp_path / 'flag'}")
    frames, damage = apart(clip)
    assert_same(plain(clip)[0], frames)
    assert damage == ["the decoder was ended by SIGKILL and was started again (1 time)"]


def test_a_fault_in_reading_ends_the_file_there(fault, clip):
    fault("read 12")
    frames, damage = apart(clip)
    assert_same(plain(clip)[0][:12], frames)
    assert any("the rest was left out" in line for line in damage), damage


def test_a_picture_that_crashes_the_codec_is_left_out(fault, tmp_path):
    for i in range(3):
        write_image(tmp_path / f"{i}.png", footage(3, 32, 24)[i])
    fault("crash 1")
    frames, damage = apart(tmp_path)
    assert [frame.index for frame in frames] == [0, 2]
    assert any("1.png: the decoder crashed" in line for line in damage)


def test_a_decoder_that_cannot_even_start_is_one_line(fault, clip):
    fault("start 0")
    with pytest.raises(InputError, match="SIGSEGV") as error:
        isolated.probe(clip)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"SIGSEGV at frame 0, 2 times"):
        apart(clip)


def test_a_decoder_that_dies_on_and_on_is_given_up(fault, clip, monkeypatch):
    monkeypatch.setattr(isolated, "_MOST_DEATHS", 1)
    fault("crash 17")
    with pytest.raises(InputError, match=r"SIGSEGV at frame \d+ \(0\.68 s\), 1 times in all"):
        apart(clip)


def test_a_hang_is_noticed(fault, clip, monkeypatch, tmp_path):
    monkeypatch.setattr(isolated, "PATIENCE", 5.0)
    fault(f"hang 20 {tmp_path / 'flag'}")
    frames, damage = apart(clip)
    assert_same(plain(clip)[0], frames)
    assert any("gave nothing for 5 s" in line for line in damage)


def test_runaway_memory_is_one_line(fault, clip):
    fault("memory 3")
    with pytest.raises(InputError, match="more memory than a video may"):
        apart(clip)


def test_waiting_for_a_decoder_can_be_ended(fault, clip):
    fault("hang 20")
    got: list[Frame] = []
    with IsolatedReader(probe(clip)) as reader:
        thread = threading.Thread(target=lambda: got.extend(reader))
        thread.start()
        time.sleep(0.2)
        reader.cancel()
        thread.join(60)
        assert not thread.is_alive()


PARENT = """
import sys, time
from pathlib import Path
from sdatc_cli.media.isolated import IsolatedReader, probe
with IsolatedReader(probe(Path(sys.argv[1]))) as reader:
    next(iter(reader))
    print(reader._child._process.pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_decoder_ends_with_its_parent_and_not_with_ctrl_c(clip, fault):
    """Also where the codec hangs."""
    fault("hang 20")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT.replace("with Isol", "import sdatc_cli.media.isolated as i\n"
         "i.PROGRAM = 'tests.media.faulty_decoder'\nwith Isol"), str(clip)],
        stdout=subprocess.PIPE, cwd=REPO,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
        time.sleep(0.3)
        assert alive(child)
        parent.kill()
    deadline = time.monotonic() + 60
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_decoder_knows_nothing_of_networks():
    code = "import sys, sdatc_cli.media.decoder; print([m for m in ('torch', 'typer', 'rich') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
