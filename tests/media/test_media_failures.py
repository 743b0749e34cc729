"""Bad inputs and outputs: the right error, one line, nothing left behind."""

import contextlib
import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sdatc_cli.errors import InputError, OutputError, SdatcError, UsageError
from sdatc_cli.media import video_sink
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import FrameReader
from sdatc_cli.media.write import EncodeOptions, MediaWriter
from tests.media.clips import FAST, convert, footage, leftovers, read_all, write_video


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mkv", footage(10, 96, 64))


def one_line(error: pytest.ExceptionInfo[SdatcError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text and len(text) < 400
    return text


def bad_inputs(folder: Path, ffmpeg) -> dict[str, tuple[Path, str]]:
    """Name -> (path, words of the error)."""
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts" / "readme.md").write_text("no frames")
    (folder / "text.mp4").write_text("This is not a video, whatever its name says.\n" * 50)
    (folder / "text.txt").write_text("ANSI art is a video to some.\n" * 50)
    (folder / "zero.mkv").touch()
    (folder / "zero.png").touch()
    (folder / "text.png").write_text("not a picture")
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (folder / "list.ffconcat").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    (folder / "a.mpd").write_text("<?xml version='1.0'?><MPD></MPD>")
    (folder / "session.sdp").write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\n")
    noise = np.random.default_rng(1).integers(0, 256, 50_000, np.uint8).tobytes()
    (folder / "noise.mkv").write_bytes(noise)
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=0.3", "-c:a", "aac", folder / "sound.mp4")
    Image.new("RGB", (32, 32)).save(folder / "cover.png")
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=0.3", "-i", folder / "cover.png", "-map", "0", "-map", "1", "-c:v", "copy",
           "-disposition:v", "attached_pic", folder / "song.mp3")  # fmt: skip
    whole = write_video(folder / "whole.mp4", footage(10, 96, 64))
    (folder / "no-index.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    (folder / "huge.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\0\0\0\x09IDAT"
        + bytes(99)
    )
    os.mkfifo(folder / "pipe.mkv")
    return {
        "missing": (folder / "none.mp4", "no such file"),
        "null in the name": (Path("a\0b.mp4"), ""),
        "empty folder": (folder / "empty", "without frames"),
        "folder of texts": (folder / "texts", "without frames"),
        "text as video": (folder / "text.mp4", "not a video"),
        "text": (folder / "text.txt", "not a video"),
        "zero bytes": (folder / "zero.mkv", "empty"),
        "zero bytes image": (folder / "zero.png", "empty"),
        "text as image": (folder / "text.png", "not an image"),
        "playlist": (folder / "list.m3u8", "playlist"),
        "playlist in disguise": (folder / "list.mp4", "playlist"),
        "concat script": (folder / "list.ffconcat", "playlist"),
        "DASH manifest": (folder / "a.mpd", "playlist"),
        "SDP": (folder / "session.sdp", "playlist"),
        "noise": (folder / "noise.mkv", "not a video"),
        "audio only": (folder / "sound.mp4", "no video"),
        "audio with a cover": (folder / "song.mp3", "no video"),
        "index lost": (folder / "no-index.mp4", "damaged"),
        "absurd size": (folder / "huge.png", "large"),
        "a pipe": (folder / "pipe.mkv", "regular"),
        "http": (Path("http://example.com/a.mp4"), "local files"),
        "concat": (Path("concat:a.ts|b.ts"), "local files"),
        "a device": (Path("/dev/zero"), "regular"),
    }


def test_bad_inputs(tmp_path, ffmpeg):
    for name, (path, words) in bad_inputs(tmp_path, ffmpeg).items():
        with pytest.raises(InputError) as error:
            probe(path)
        assert words in one_line(error), name


def test_bad_outputs(source, tmp_path):
    info = probe(source)
    (tmp_path / "old.mp4").write_bytes(b"precious")
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "holiday.png").write_bytes(b"precious")
    (tmp_path / "folder.mp4").mkdir()
    cases = [
        (tmp_path / "none" / "out.mp4", OutputError, "no such folder"),
        (source, OutputError, "is the input"),
        (tmp_path / "old.mp4", OutputError, "exists"),
        (tmp_path / "old.mp4" / "out.mkv", OutputError, "no such folder"),
        (Path("/proc/out.mp4"), OutputError, "cannot be written"),
        (tmp_path / ("x" * 260 + ".mp4"), OutputError, "cannot be written"),
        (tmp_path / "out.xyz", UsageError, "not known"),
        (tmp_path / "out.mp3", UsageError, "not known"),
    ]
    before = sorted(p.name for p in tmp_path.iterdir())
    for out, kind, words in cases:
        with pytest.raises(kind) as error:
            MediaWriter(out, info, 96, 64, FAST, False)
        assert words in one_line(error), out
    for out in (tmp_path / "album", source):
        with pytest.raises(OutputError):
            MediaWriter(out, info, 96, 64, FAST, True)
    with pytest.raises(OutputError, match="is the input"):
        (tmp_path / "link.mkv").symlink_to(source)
        MediaWriter(tmp_path / "link.mkv", info, 96, 64, FAST, True)
    (tmp_path / "link.mkv").unlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (tmp_path / "album" / "holiday.png").read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(source, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        MediaWriter(tmp_path / "locked" / "out.mp4", probe(source), 96, 64, FAST, False)


@pytest.mark.parametrize(
    ("ending", "codec", "words"),
    [
        ("mp4", "nonsense", "not in this FFmpeg"),
        ("mp4", "aac", "does not encode video"),
        ("webm", "libx264", "cannot hold"),
        ("mp4", "prores_ks", "cannot hold"),
        ("ts", "ffv1", "cannot hold"),
        ("ts", "libsvtav1", "cannot hold"),
        ("avi", "prores_ks", "cannot hold"),
    ],
)
def test_codecs_that_do_not_exist_or_fit(ending, codec, words, source, tmp_path):
    with pytest.raises(UsageError) as error:
        MediaWriter(tmp_path / f"out.{ending}", probe(source), 192, 128, EncodeOptions(codec), False)
    assert words in one_line(error)
    assert leftovers(tmp_path, "in.mkv") == []


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".png", ""])
def test_an_exception_leaves_nothing(ending, source, tmp_path):
    info = probe(source)
    out = tmp_path / f"out{ending}"
    frame = read_all(source)[1][0]
    with pytest.raises(RuntimeError), MediaWriter(out, info, 96, 64, FAST, False) as writer:
        writer.write(frame)
        raise RuntimeError
    assert leftovers(tmp_path, "in.mkv") == []


def test_an_interrupt_keeps_the_old_output(source, tmp_path):
    out = tmp_path / "out.mkv"
    convert(source, out)
    before = out.read_bytes()
    info = probe(source)
    with pytest.raises(KeyboardInterrupt), MediaWriter(out, info, 96, 64, FAST, True):
        raise KeyboardInterrupt
    assert out.read_bytes() == before and leftovers(tmp_path, "in.mkv", "out.mkv") == []
    convert(source, out, scale=1, overwrite=True)
    assert out.read_bytes() != before and probe(out).width == 96


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", ["out.mp4", "out.png", "out"])
def test_a_name_that_is_taken_meanwhile_is_left_alone(name, links, source, tmp_path, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    info, out = replace(probe(source), frame_count=1), tmp_path / name
    for overwrite in (False, True):
        with FrameReader(info) as reader:
            frame = next(iter(reader))
        with contextlib.ExitStack() as stack:
            if not overwrite:
                stack.enter_context(pytest.raises(OutputError, match="taken now"))
            with MediaWriter(out, info, 96, 64, FAST, overwrite) as writer:
                writer.write(frame)
                if not out.exists() and (name != "out" or not overwrite):
                    out.write_text("precious")
        if not overwrite:
            assert out.read_text() == "precious"
            kept = leftovers(tmp_path, "in.mkv", name)
            assert len(kept) == (name == "out")
            for folder in kept:
                assert [path.name for path in (tmp_path / folder).iterdir()] == ["00000000.png"]
                shutil.rmtree(tmp_path / folder)
            if name == "out":
                out.unlink()
    assert leftovers(tmp_path, "in.mkv", name) == []
    assert out.is_dir() if name == "out" else out.read_bytes() != b"precious"


def no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_what_comes_into_a_folder_meanwhile_is_left_alone(source, tmp_path):
    info, out = probe(source), tmp_path / "out"
    out.mkdir()
    with FrameReader(info) as reader:
        frame = next(iter(reader))
    with (
        pytest.raises(OutputError, match=r"left alone.*finished frames are in"),
        MediaWriter(out, info, 96, 64, FAST, True) as writer,
    ):
        writer.write(frame)
        (out / "mine.txt").write_text("precious")
    assert (out / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("ending", [".mp4", ".png", ""])
def test_no_frames_no_output(ending, source, tmp_path):
    with pytest.raises(OutputError, match="no frame"):
        convert(source, tmp_path / f"out{ending}", start=100.0)
    assert leftovers(tmp_path, "in.mkv") == []


def test_many_frames_do_not_fit_one_picture(source, tmp_path):
    with pytest.raises(UsageError, match="several frames"):
        convert(source, tmp_path / "out.png")
    assert leftovers(tmp_path, "in.mkv") == []


@pytest.mark.parametrize("ending", ["mkv", "ts", "avi", "mp4"])
def test_a_truncated_video_gives_what_is_there_and_tells(ending, tmp_path, ffmpeg):
    whole = write_video(tmp_path / "whole.mkv", footage(40, 96, 64))
    source = tmp_path / f"whole.{ending}"
    if ending == "avi":
        write_video(source, footage(40, 96, 64), options={"preset": "ultrafast", "bf": "0"})
    elif ending != "mkv":
        ffmpeg("-i", whole, "-c", "copy", *(["-movflags", "faststart"] if ending == "mp4" else []), source)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    _, frames, damage = read_all(cut)
    assert 4 < len(frames) < 36
    assert damage or ending == "ts"  # a transport stream may end anywhere
    assert all("\n" not in line for line in damage)
    lost, _ = convert(cut, tmp_path / "out.mkv")
    if ending == "ts":  # which of FFmpeg's threads is first decides whether its last frame, cut short, is damaged
        lost, damage = ([line for line in lines if "were concealed" not in line] for lines in (lost, damage))
    assert lost == damage
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert len(list(container.decode(video=0))) == len(frames)


def test_damage_in_the_middle_is_told_with_its_time(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(50, 96, 64), options={"preset": "ultrafast", "g": "10"})
    data = bytearray(source.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    source.write_bytes(data)
    _, frames, damage = read_all(source)
    assert len(frames) > 30 and damage
    assert any(" s)" in line or " s," in line for line in damage)


def test_a_stream_that_begins_in_the_middle_is_told(tmp_path, ffmpeg):
    """Recordings joined end to end, of which only the second has sound; the first is longer than what is probed."""
    noise = np.random.default_rng(0).integers(0, 256, (22, 360, 640, 3), np.uint8)
    fine = {"preset": "ultrafast", "crf": "5"}
    silent = write_video(tmp_path / "silent.ts", noise, options=fine)
    with_sound, joined = tmp_path / "sound.ts", tmp_path / "joined.ts"
    ffmpeg("-i", silent, "-f", "lavfi", "-i", "sine=440:d=0.9", "-c:v", "copy", "-c:a", "aac", with_sound)
    joined.write_bytes(silent.read_bytes() + with_sound.read_bytes() + silent.read_bytes())
    assert len(probe(joined).streams) == 1
    _, frames, damage = read_all(joined)
    assert len(frames) == 3 * 22
    assert damage == ["left out, for they begin only further into the file: Audio: aac"]
    lost, _ = convert(joined, tmp_path / "out.mkv", scale=1)
    assert lost == damage


def test_a_file_that_changes_or_goes_is_an_error_of_input(source, tmp_path):
    info = probe(source)
    source.unlink()
    with pytest.raises(InputError), FrameReader(info) as reader:
        list(reader)


def test_a_full_disk_is_an_error_of_output(source, monkeypatch):
    """A container written to /dev/full: every write fails as on a full disk."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")

    class Full(video_sink.TargetFile):
        def __init__(self, out: Path, overwrite: bool) -> None:
            self.out, self.path = out, full

        def discard(self) -> None:
            pass

    monkeypatch.setattr(video_sink, "TargetFile", Full)
    with pytest.raises(OutputError, match="cannot be written"):
        convert(source, source.with_name("out.mkv"))
    shutil.rmtree(source.parent)
