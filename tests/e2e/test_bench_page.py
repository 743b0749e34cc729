"""report.html in a real headless Chromium, driven over the WebDriver protocol: it works, and fetches nothing.

Skips where no browser is installed, and fails there when SDATC_REQUIRE_BROWSER=1.
"""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdatc_cli.bench import command, inputs
from sdatc_cli.output import Terminal
from tests.conftest import texture, wait_for

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,1000"),
)
METHODS = ("bicubic", "lanczos")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key the WebDriver standard gives to elements


class Browser:
    """The few WebDriver commands these tests need."""

    def __init__(self, driver: str, browser: str, profile: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.base = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.downloads = profile / "downloads"
        self.process = subprocess.Popen([driver, f"--port={self.base.rsplit(':', 1)[1]}", "--silent"])
        chrome = {
            "binary": browser,
            "args": [*FLAGS, f"--user-data-dir={profile / 'profile'}"],
            "prefs": {"download.default_directory": str(self.downloads)},
        }
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        self.session = ""
        wait_for(lambda: self._ready(), "chromedriver to answer")
        self.session = f"/session/{self.call('POST', '/session', capabilities={'alwaysMatch': wanted})['sessionId']}"

    def _ready(self) -> bool:
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, verb: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if verb == "POST" else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.base + self.session + path, data, headers, method=verb)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.call("POST", "/execute/sync", script=script, args=list(arguments))

    def find(self, selector: str) -> str:
        return self.call("POST", "/element", using="css selector", value=selector)[ELEMENT]

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", {ELEMENT: element})
        self.call("POST", f"/element/{element}/click")

    def drag(self, selector: str, start: tuple[int, int], end: tuple[int, int], press: bool) -> None:
        """Moves the mouse between two offsets from an element's middle."""
        origin = {ELEMENT: self.find(selector)}
        self.run("arguments[0].scrollIntoView({block: 'center'})", origin)

        def move(place: tuple[int, int]) -> dict[str, Any]:
            return {"type": "pointerMove", "origin": origin, "x": place[0], "y": place[1], "duration": 50}

        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        moves = [move(start), down, move(end), up] if press else [move(start), move(end)]
        self.call("POST", "/actions", actions=[{"type": "pointer", "id": "mouse", "actions": moves}])

    def picture(self, selector: str) -> np.ndarray:
        """A screenshot of one element."""
        shot = self.call("GET", f"/element/{self.find(selector)}/screenshot")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")).astype(int)

    def logs(self, kind: str) -> list[dict[str, Any]]:
        return self.call("POST", "/se/log", type=kind)

    def close(self) -> None:
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of two methods on two clips at two CRFs."""
    root = tmp_path_factory.mktemp("page")
    for seed, name in enumerate(("grass", "stone")):
        wide = texture(192, 256 + 12, seed)
        (root / "set" / name).mkdir(parents=True)
        for k in range(4):
            Image.fromarray(wide[:, 3 * k : 3 * k + 256]).save(root / "set" / name / f"{k:03d}.png")
    request = command.Request(
        dataset=str(root / "set"),
        data=None,
        crfs=(15, 35),
        kernel="bicubic",
        methods=METHODS,
        candidates=(),
        metrics="psnr-y,ssim-y,warp",
        frames=None,
        every=1,
        model="lite",
        device="cpu",
        dtype="fp32",
        out=root / "report",
        save_frames=False,
        resume=False,
        overwrite=False,
        command=("sdatc", "bench", "--dataset", "<set>"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "cache_folder", lambda: root / "cache")
        command.run(replace(request), Terminal(quiet=True))
    return root / "report"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, report: Path) -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        reason = "no Chromium with ChromeDriver here (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("SDATC_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    opened = Browser(driver, chromium, tmp_path_factory.mktemp("browser"))
    try:
        opened.call("POST", "/url", url=(report / "report.html").as_uri())
        wait_for(lambda: opened.run("return document.getElementById('under').naturalWidth") == 256, "the pictures")
        yield opened
    finally:
        opened.close()


def clip_share(browser: Browser) -> float:
    """How much of the left picture is shown, 0 to 1."""
    inset = browser.run("return document.getElementById('over').style.clipPath")
    return 1 - float(inset.split()[1].rstrip("%")) / 100


def test_the_slider_moves_and_shows_both_pictures(browser: Browser) -> None:
    browser.run(
        "for (const [id, name] of [['left', 'input'], ['right', 'ground truth']]) {"
        "const s = document.getElementById(id); s.value = name; s.dispatchEvent(new Event('change')); }"
    )
    assert clip_share(browser) == pytest.approx(0.5)
    browser.drag("#stage", (0, 0), (90, 10), press=True)
    right = clip_share(browser)
    assert right == pytest.approx((128 + 90) / 256, abs=0.02)
    shot = browser.picture("#stage")
    browser.drag("#stage", (90, 10), (-90, 10), press=True)
    assert clip_share(browser) == pytest.approx((128 - 90) / 256, abs=0.02)
    moved = browser.picture("#stage")
    changed = np.abs(shot - moved).sum(2).mean(0)
    assert changed[60:190].mean() > 10, "the strip between the two places shows the other picture now"
    assert changed[:30].mean() == changed[230:].mean() == 0
    browser.drag("#stage", (-40, 0), (40, 0), press=False)
    assert clip_share(browser) == pytest.approx((128 - 90) / 256, abs=0.02), "without a button it stays"
    browser.run("const s = document.getElementById('slide'); s.value = 250; s.dispatchEvent(new Event('input'))")
    assert clip_share(browser) == pytest.approx(0.25), "the range input below does the same for a keyboard"


def test_the_crops_move_together(browser: Browser) -> None:
    positions = "return [...document.querySelectorAll('#crops div')].map((d) => d.style.backgroundPosition)"
    browser.drag("#stage", (0, 0), (-100, -70), press=False)
    before = browser.run(positions)
    browser.drag("#stage", (-100, -70), (60, 40), press=False)
    after = browser.run(positions)
    assert len(before) == len(METHODS) + 2, "the input, the methods, the ground truth"
    assert len(set(before)) == len(set(after)) == 1
    assert before[0] != after[0]


def test_another_clip_and_crf_show_other_pictures(browser: Browser) -> None:
    source = "return document.getElementById('under').src"
    seen = {browser.run(source)}
    for control, value in (("crf", "35"), ("clip", "stone")):
        browser.run(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))",
            control,
            value,
        )
        browser.run(
            "const s = document.getElementById('right'); s.value = 'bicubic'; s.dispatchEvent(new Event('change'))"
        )
        seen.add(browser.run(source))
    assert len(seen) == 3
    profiles = browser.run("return [...document.querySelectorAll('#rows img')].map((i) => [i.alt, i.naturalHeight])")
    assert [name for name, _ in profiles] == ["input", *METHODS, "ground truth"]
    assert all(height >= 120 for _, height in profiles)


def test_tables_and_charts_are_there_without_script(browser: Browser, report: Path) -> None:
    told = json.loads((report / "report.json").read_text())
    rows = browser.run("return [...document.querySelectorAll('tr.measured')].map((r) => r.textContent)")
    for row in (row for row in told["summary"] if row["method"] in METHODS):
        assert any(row["method"] in text and f"{row['metrics']['psnr-y']:.2f}" in text for text in rows)
    assert browser.run("return document.querySelectorAll('td.best').length") >= 2 * 3
    assert browser.run("return document.querySelectorAll('svg .measured').length") == 3 * len(METHODS)
    assert "<set>" in browser.run("return document.querySelector('#about code').textContent"), "text is escaped"


def test_votes_are_blind_and_can_be_downloaded(browser: Browser) -> None:
    def shown() -> str:
        return browser.run("return document.getElementById('vote').outerHTML.replace(/data:[^\"]+/g, '')")

    assert not any(name in shown() for name in METHODS)
    first = browser.run("return document.getElementById('first').src")
    assert first.startswith("data:image/webp")
    for choice in ("first", "second", "same"):
        browser.click(f"[data-vote={choice}]")
    assert browser.run("return document.getElementById('count').textContent") == "3 votes, 4 pairs in all"
    assert not any(name in shown() for name in METHODS)
    browser.click("#download")
    path = browser.downloads / "votes.json"
    wait_for(path.is_file, "the download")
    told = json.loads(path.read_text())
    assert [vote["choice"] for vote in told["votes"]] == ["first", "second", "same"]
    for vote in told["votes"]:
        assert {vote["first"], vote["second"]} == set(METHODS)
        assert vote["preferred"] == (None if vote["choice"] == "same" else vote[vote["choice"]])
        assert vote["crf"] in (15, 35) and vote["clip"] in ("grass", "stone") and vote["milliseconds"] >= 0
    assert sum(told["tally"]["bicubic or lanczos"].values()) == 3


def test_nothing_is_fetched_from_outside(browser: Browser, report: Path) -> None:
    events = [json.loads(entry["message"])["message"] for entry in browser.logs("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    page = (report / "report.html").as_uri()
    # The browser's own new tab asks for things too; what the report asks for carries its address.
    asked = [request["request"]["url"] for request in sent if request["documentURL"] == page]
    assert page in asked
    inside = ("data:", "blob:", "chrome:")  # chrome: icons of its controls, part of the browser
    others = [url for url in asked if url != page and not url.startswith(inside)]
    assert not others
    errors = [entry["message"] for entry in browser.logs("browser") if entry["level"] == "SEVERE"]
    assert not errors
