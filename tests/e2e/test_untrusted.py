"""Inputs from strangers: what reaches beyond a local file is refused unless it is allowed; no name is misread."""

import http.server
import os
import struct
import threading
from functools import partial
from pathlib import Path

import av
import pytest
from PIL import Image

from sdatc_cli.app import run
from tests.conftest import write_clip


@pytest.fixture
def refused(sdatc, tmp_path):
    """Expects exit code 3 and one line; returns it."""

    def call(source: object, *words: object) -> str:
        code, result, said = sdatc(source, tmp_path / "out.mkv", *words, model="still")
        lines = said.splitlines()
        assert code == 3 and result is None and len(lines) == 1 and lines[0].startswith("error: "), lines
        assert not (tmp_path / "out.mkv").exists()
        return lines[0]

    return call


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """Serves the test's folder on this machine; the address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(_Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}", asked
        one.shutdown()


def count(path: Path) -> int:
    with av.open(f"file:{path}") as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("http://127.0.0.1:1/a.mp4", "http"),
        ("HTTPS://127.0.0.1:1/a.png", "https"),
        ("rtmp://127.0.0.1:1/live", "rtmp"),
        ("concat:a.ts|b.ts", "concat"),
        ("subfile,,start,0,end,9,,:a.ts", "subfile"),
        ("data:video/mp4;base64,AAAA", "data"),
        ("pipe:0", None),
        ("fd:", None),
        ("cache:http://127.0.0.1:1/a.mp4", None),
        ("anything://127.0.0.1/a.mp4", None),
    ],
)
def test_protocols_are_refused_by_name(name, option, refused):
    line = refused(name)
    assert "only local files" in line
    assert (f"--allow-protocols {option} " in line) == (option is not None)


def test_protocols_that_do_not_exist_are_an_error_of_usage(sdatc, tmp_path):
    code, _, said = sdatc("a.mp4", tmp_path / "out.mkv", "--allow-protocols", "http,gopher")
    assert code == 2 and len(said.splitlines()) == 1 and "gopher" in said


def test_http_is_read_when_it_is_allowed(sdatc, refused, server, tmp_path):
    write_clip(tmp_path / "a.mp4", frames=3, sound=True)
    address, asked = server
    refused(f"{address}/a.mp4", "--allow-protocols", "https")
    assert not asked
    code, result, said = sdatc(f"{address}/a.mp4", tmp_path / "out.mkv", "--allow-protocols", "http", model="still")
    assert code == 0, said
    assert result["frames"] == count(tmp_path / "out.mkv") == 3 and asked
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.audio


def test_playlists_are_followed_only_as_far_as_allowed(sdatc, refused, server, tmp_path):
    write_clip(tmp_path / "a.ts", frames=3)
    address, asked = server
    local, remote, script = (tmp_path / name for name in ("local.m3u8", "remote.m3u8", "list.ffconcat"))
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.12,\n"
    local.write_text(f"{head}a.ts\n#EXT-X-ENDLIST\n")
    remote.write_text(f"{head}{address}/a.ts\n#EXT-X-ENDLIST\n")
    script.write_text("ffconcat version 1.0\nfile a.ts\n")
    assert "--allow-protocols hls" in refused(local)
    assert "--allow-protocols concat" in refused(script)
    refused(local, "--allow-protocols", "concat,http")
    refused(remote, "--allow-protocols", "hls")
    assert not asked
    for source, names in ((local, "hls"), (remote, "hls,http"), (script, "concat")):
        code, _, said = sdatc(source, tmp_path / "out.mkv", "--allow-protocols", names, "-y", model="still")
        assert code == 0 and count(tmp_path / "out.mkv") == 3, said


def boxes(data: bytes, dref: bytes) -> bytes:
    """The boxes of a QuickTime file with other data references."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = boxes(body, dref)
        elif kind == b"dref":
            body = body[:4] + struct.pack(">I", 1) + dref
        out, at = out + struct.pack(">I4s", len(body) + 8, kind) + body, at + size
    return out


@pytest.mark.parametrize("flag", [0, 1])
def test_a_movie_whose_pictures_lie_in_another_file_is_refused(flag, refused, tmp_path):
    other = write_clip(tmp_path / "other.mov", frames=3)
    target = str(other).encode()
    alias = bytes(10) + b"\3vol".ljust(28, b"\0") + bytes(12) + b"\x09other.mov".ljust(64, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16) + struct.pack(">hh", 2, len(target)) + target
    alias += bytes(len(target) % 2) + struct.pack(">hh", -1, 0)
    movie = tmp_path / "movie.mov"
    movie.write_bytes(boxes(other.read_bytes(), struct.pack(">I4sI", 12 + len(alias), b"alis", flag) + alias))
    assert "lie in another file" in refused(movie)


def test_patterns_are_names(sdatc, refused, tmp_path):
    """FFmpeg would read frame01.png for frame%02d.png."""
    for i in range(3):
        Image.new("RGB", (32, 24), (80 * i, 0, 0)).save(tmp_path / f"frame{i:02}.png")
    for name in ("frame%02d.png", "frame%02d.mkv"):
        assert "no such file" in refused(tmp_path / name)


NAMES = ["-dash.mkv", "100%d.mkv", 'it\'s "quoted" `x` $(y).mkv', "new\nline.mkv", "ünï 映画.mkv", "[a]*?.mkv",
         "http:a.mkv", "concat:a|b.mkv", "\x1b[31mred.mkv", os.fsdecode(b"latin-\xfc.mkv")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_hard_to_quote(name, sdatc, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "in.mkv", frames=2, sound=True).rename(tmp_path / name)
    small = write_clip(tmp_path / "large.mkv", frames=2, width=128, height=96, sound=True).rename(tmp_path / f"L{name}")
    code, _, said = sdatc(name, Path(f"out {name}"), model="still")
    assert code == 0, said
    assert count_named(tmp_path / f"out {name}") == 2
    out = tmp_path / f"small {name}"
    assert run(["degrade", "-o", f"small {name}", "--quiet", "--", small.name]) == 0, capfd.readouterr().err
    assert count_named(out) == 2 and Path(f"{out}.json").exists()


def count_named(path: Path) -> int:
    """Frames of a file whose name PyAV cannot take."""
    plain = path.rename(path.with_name("plain.mkv"))
    return count(plain)
