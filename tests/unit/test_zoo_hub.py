"""Downloads from a hub: a server on this machine stands in for it, programs of their own ask it."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ASK = """
import sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 65536  # what is written at a time; else more than this test sends
from sdatc_cli.errors import SdatcError
from sdatc_cli.zoo.hub import Hub
try:
    found = Hub("owner/name", "main").get(sys.argv[1])
    print(found and found.path, found and found.stated)
except SdatcError as error:
    print("refused:", error)
"""


class FakeHub(BaseHTTPRequestHandler):
    """Serves weights.safetensors and damaged.safetensors; `stop_after` bytes of the first body the line goes dead."""

    stop_after: int | None = None
    gone: threading.Event  # set when nobody waits for the rest any more
    address: str
    asked: list[tuple[str, str, str | None]]  # (method, path, Range)

    def log_message(self, *arguments: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        if "/resolve/" not in self.path or "absent" in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers.get("Range")
        type(self).asked.append((self.command, self.path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and body else 0
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if body:
            content = CONTENT[::-1] if "damaged" in self.path else CONTENT
            stop = type(self).stop_after
            self.wfile.write(content[start:] if stop is None else content[start : start + stop])
            if stop is not None:
                self.wfile.flush()
                self.gone.wait(30)
                self.close_connection = True


@pytest.fixture
def server() -> Iterator[type[FakeHub]]:
    handler = type("Handler", (FakeHub,), {"asked": [], "gone": threading.Event()})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    handler.address = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield handler
    handler.gone.set()
    http.shutdown()


def environment(tmp_path: Path, address: str, **more: str) -> dict[str, str]:
    own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "SDATC_CACHE_DIR": str(tmp_path / "cache")}
    return os.environ | own | {"HF_HUB_DISABLE_TELEMETRY": "1"} | more


def ask(tmp_path: Path, server: type[FakeHub], name: str, **more: str) -> str:
    command = [sys.executable, "-c", ASK, name]
    done = subprocess.run(command, env=environment(tmp_path, server.address, **more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_download_of_a_killed_program_goes_on_where_it_stopped(tmp_path: Path, server: type[FakeHub]) -> None:
    server.stop_after = 300_000
    command = [sys.executable, "-c", ASK, "unet/weights.safetensors"]
    program = subprocess.Popen(command, env=environment(tmp_path, server.address), stderr=subprocess.PIPE)
    for _ in range(600):
        time.sleep(0.05)
        partial = next((tmp_path / "cache").rglob("*.partial"), None)
        if partial is not None and partial.stat().st_size:
            break
    program.kill()
    program.communicate()
    assert partial is not None
    had = partial.stat().st_size
    assert 0 < had <= 300_000
    server.gone.set()
    server.stop_after = None
    path, stated = ask(tmp_path, server, "unet/weights.safetensors").split()
    assert Path(path).read_bytes() == CONTENT and stated == SHA256
    assert not list((tmp_path / "cache").rglob("*.partial"))
    ranges = [wanted for method, _, wanted in server.asked if method == "GET"]
    assert ranges == [None, f"bytes={had}-"]
    before = len(ranges)
    assert ask(tmp_path, server, "unet/weights.safetensors").split()[0] == path
    assert len([1 for method, _, _ in server.asked if method == "GET"]) == before


def test_a_file_that_is_not_there_is_none_and_a_dead_line_one_error(tmp_path: Path, server: type[FakeHub]) -> None:
    assert ask(tmp_path, server, "absent.safetensors") == "None None"
    assert ask(tmp_path, server, "weights.safetensors", HF_HUB_OFFLINE="1") == "None None"
    server.address = "http://127.0.0.1:9"
    said = ask(tmp_path, server, "weights.safetensors")
    assert said.startswith("refused: owner/name cannot be reached or read") and "\n" not in said
    assert not server.asked


def test_what_the_hubs_own_cache_holds_is_taken_from_there(tmp_path: Path, server: type[FakeHub]) -> None:
    repo, commit = tmp_path / "hf" / "hub" / "models--owner--name", "b" * 40
    (repo / "blobs").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs" / SHA256).write_bytes(CONTENT)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "weights.safetensors").symlink_to(repo / "blobs" / SHA256)
    path, stated = ask(tmp_path, server, "weights.safetensors", HF_HUB_OFFLINE="1").split()
    assert Path(path) == snapshot / "weights.safetensors" and stated == SHA256
    assert not server.asked


def test_a_file_that_differs_from_its_stated_checksum_is_deleted(tmp_path: Path, server: type[FakeHub]) -> None:
    code = """
from sdatc_cli.errors import SdatcError
from sdatc_cli.zoo.manifest import Part
from sdatc_cli.zoo.sources import fetch
try:
    print(fetch(Part("unet", ("owner/name",), ("absent.safetensors", "damaged.safetensors")), None))
except SdatcError as error:
    print("refused:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path, server.address), capture_output=True, text=True
    )
    assert "damaged.safetensors of owner/name@main is damaged" in done.stdout, done.stderr
    assert "run the same command again" in done.stdout
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_no_network_at_all_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdatc_cli", "models", "pull", "base", "--quiet"]
    env = environment(tmp_path, "http://127.0.0.1:9")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 4 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: no unet to be had: check the network")
    assert "--source" in done.stderr and "Manojb/stable-diffusion-2-1-base" in done.stderr
