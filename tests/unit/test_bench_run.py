"""A run of `bench` from folders of frames to report.json: what it measures, resumes, and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdatc_cli.bench import command, fidelity, inputs, methods, scoring, worker
from sdatc_cli.bench.workspace import Unit, Workspace, export_png, opened, read_json, write_json
from sdatc_cli.errors import InputError, OutputError, UsageError
from sdatc_cli.output import Terminal
from tests.conftest import texture

COUNT, HEIGHT, WIDTH = 4, 96, 128


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of a texture that moves by two pixels a frame."""
    root = tmp_path_factory.mktemp("set")
    for seed, name in enumerate(("left", "right")):
        wide = texture(HEIGHT, WIDTH + 2 * COUNT, seed)
        (root / name).mkdir()
        for k in range(COUNT):
            Image.fromarray(wide[:, 2 * k : 2 * k + WIDTH]).save(root / name / f"{k:03d}.png")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compressed inputs go to a folder of the test session."""
    folder = tmp_path_factory.getbasetemp() / "bench-cache"
    monkeypatch.setattr(inputs, "cache_folder", lambda: folder)
    return folder


def request(clips: Path, **changes: Any) -> command.Request:
    plain = command.Request(
        dataset=str(clips),
        data=None,
        crfs=(25,),
        kernel="bicubic",
        methods=("bicubic",),
        candidates=(),
        metrics="psnr-y,warp",
        frames=None,
        every=1,
        model="lite",
        device="cpu",
        dtype="fp32",
        out=None,
        save_frames=False,
        resume=False,
        overwrite=False,
        command=("sdatc", "bench"),
    )
    return replace(plain, **changes)


def run(clips: Path, **changes: Any) -> dict[str, Any]:
    return command.run(request(clips, **changes), Terminal(quiet=True))


def row(report: dict[str, Any], method: str, crf: int = 25) -> dict[str, Any]:
    return next(row for row in report["summary"] if row["method"] == method and row["crf"] == crf)


def test_scores_are_those_of_the_frames(clips: Path, own_cache: Path) -> None:
    report = run(clips, crfs=(15, 35), methods=("bicubic", "lanczos"))
    by_crf = [row(report, "bicubic", crf)["metrics"]["psnr-y"] for crf in (15, 35)]
    assert by_crf[0] > by_crf[1] + 1
    made = next(item for item in report["inputs"] if item["clip"] == "left" and item["crf"] == 15)
    compressed = inputs.FrameReader(inputs.probe(own_cache / f"{made['key']}.mkv"))
    values = []
    for k, frame in enumerate(compressed):
        truth = np.asarray(Image.open(clips / "left" / f"{k:03d}.png"))
        restored = np.asarray(Image.fromarray(frame.image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        values.append(fidelity.psnr(fidelity.luma(truth), fidelity.luma(restored)))
    compressed.close()
    entry = next(e for e in report["results"] if (e["clip"], e["crf"], e["method"]) == ("left", 15, "bicubic"))
    assert entry["metrics"]["psnr-y"] == pytest.approx(np.mean(values), abs=1e-9)
    assert [value for _, value in entry["per_frame"]["psnr-y"]] == pytest.approx(values, abs=1e-9)

    told = row(report, "lanczos", 15)
    assert told["speed"]["seconds_per_frame"] > 0
    assert (told["speed"]["device"], told["speed"]["dtype"]) == ("cpu", "uint8")
    assert told["speed"]["peak_bytes"] > 1e6
    assert row(report, "truth", 15)["metrics"].keys() == set(), "psnr-y and warp say nothing of the truth itself"
    assert report["protocol"]["kernel"] == "bicubic"
    assert not report["published"], "no figures were published for a folder"
    json.dumps(report, allow_nan=False)


def test_a_finished_run_is_not_done_again(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    first = run(clips, out=out)
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not (out / "raw").exists()
    with pytest.raises(OutputError, match="not empty; use --resume to go on with it, or -y"):
        run(clips, out=out)
    stored = out / "units/bicubic/crf25/left.json"
    content = json.loads(stored.read_text())
    content["result"]["entries"][0]["metrics"]["psnr-y"] = 99.0
    stored.write_text(json.dumps(content))
    again = run(clips, out=out, resume=True, methods=("bicubic", "lanczos"))
    right = next(e for e in first["results"] if e["method"] == "bicubic" and e["clip"] == "right")
    assert row(again, "bicubic")["metrics"]["psnr-y"] == pytest.approx((99 + right["metrics"]["psnr-y"]) / 2)
    assert "psnr-y" in row(again, "lanczos")["metrics"]
    other = run(clips, out=out, resume=True, metrics="psnr-y,ssim-y")
    assert row(other, "bicubic")["metrics"]["psnr-y"] < 60, "other metrics were asked for: scored anew"
    fresh = run(clips, out=out, overwrite=True)
    assert fresh["results"] == [
        {**e, "speed": f["speed"]} for e, f in zip(first["results"], fresh["results"], strict=True)
    ]


def test_restored_frames_of_an_interrupted_run_are_scored(clips: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, kept=True)
    unit = Unit("sdatc:steps=2", "left", 25)
    images = [texture(16, 24, k) for k in range(3)]
    written = scoring.RawVideo.write(workspace.raw(unit), images, [0, 1, 2])
    workspace.note_frames(unit, {"a": (1, 2)}, written, {"seconds": 3.0})
    video, speed = workspace.load_frames(unit, {"a": (1, 2)}) or (None, None)
    assert video is not None and np.array_equal(video.pixels(), images) and speed == {"seconds": 3.0}
    assert workspace.load_frames(unit, {"a": (1, 3)}) is None, "restored in another way"
    with video.path.open("ab") as file:
        file.truncate(100)
    assert workspace.load_frames(unit, {"a": (1, 2)}) is None, "cut short"


def test_saved_frames_serve_as_a_candidate(clips: Path, tmp_path: Path) -> None:
    first = run(clips, out=tmp_path / "one", save_frames=True)
    again = run(clips, methods=(), candidates=(f"mine={tmp_path / 'one/frames/bicubic'}",))
    assert row(again, "mine")["metrics"] == row(first, "bicubic")["metrics"]
    assert row(again, "mine")["speed"] == {}, "nobody knows how long that took"


def test_saved_frames_are_the_scored_ones_of_this_run(tmp_path: Path) -> None:
    """FID compares all that lie there: those of a longer run must not stay."""
    images = [texture(16, 24, k) for k in range(4)]
    export_png(tmp_path, images, range(4), range(4))
    export_png(tmp_path, images[1:], (1, 2, 3), (1, 3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001.png", "00000003.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "00000003.png")), images[3])


def test_a_candidate_that_does_not_fit(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "crf25" / "left"
    folder.mkdir(parents=True)
    for k in range(COUNT):
        Image.fromarray(texture(HEIGHT, WIDTH // 2, k)).save(folder / f"{k}.png")
    with pytest.raises(InputError, match=r"candidate mine, clip left at CRF 25: 64x96, expected 128x96"):
        run(clips, methods=(), candidates=(f"mine={tmp_path}",))
    with pytest.raises(UsageError, match="write NAME=DIR"):
        run(clips, candidates=("mine",))


def test_some_frames_only(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "crf25")
    candidates, out = (f"whole={tmp_path}",), tmp_path / "report"
    report = run(clips, metrics="psnr-y,vmaf,warp,tof", every=2, candidates=candidates, out=out, save_frames=True)
    for folder in ("bicubic/crf25", "whole/crf25", "truth"):
        assert sorted(path.stem[-1] for path in (out / "frames" / folder / "left").iterdir()) == ["0", "2"]
    entry = next(e for e in report["results"] if e["method"] == "bicubic")
    assert [index for index, _ in entry["per_frame"]["psnr-y"]] == [0, 2]
    methods = [e for e in report["results"] if e["method"] in ("bicubic", "whole")]
    assert len(methods) == 4 and all("needs every frame" in e["failed"]["vmaf"] for e in methods)
    assert "warp" not in entry["metrics"] and "tof" not in entry["metrics"]
    beginning = run(clips, metrics="psnr-y,tof", frames=3)
    entry = next(e for e in beginning["results"] if e["method"] == "bicubic")
    assert [index for index, _ in entry["per_frame"]["tof"]] == [1, 2]


def test_a_candidate_that_changed_is_scored_anew(clips: Path, tmp_path: Path) -> None:
    run(clips, out=tmp_path / "one", save_frames=True)
    again = {"methods": (), "candidates": (f"mine={tmp_path / 'one/frames/bicubic'}",), "out": tmp_path / "two"}
    before = run(clips, **again)
    Image.fromarray(texture(HEIGHT, WIDTH, 9)).save(tmp_path / "one/frames/bicubic/crf25/left/00000000.png")
    after = run(clips, **again, resume=True)
    assert row(after, "mine")["metrics"]["psnr-y"] < row(before, "mine")["metrics"]["psnr-y"] - 1


def test_replacing_leaves_other_peoples_files_alone(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "mine.png").write_bytes(b"mine")
    run(clips, out=tmp_path, overwrite=True)
    assert (tmp_path / "frames" / "mine.png").read_bytes() == b"mine"


def test_two_methods_of_one_name(clips: Path) -> None:
    with pytest.raises(UsageError, match="two methods are called 'bicubic'"):
        run(clips, methods=("bicubic", "bicubic"))


def test_an_unknown_kernel(clips: Path) -> None:
    with pytest.raises(UsageError, match="kernel 'box' is not known"):
        run(clips, kernel="box")


def test_the_cache_key_follows_recipe_and_content(clips: Path) -> None:
    from sdatc_cli.bench.datasets import find

    clip = find(str(clips), None).clips[0]
    recipe = inputs.recipe_for(clip, 25, "bicubic")
    key = inputs.recipe_key("digest", recipe, None)
    assert key == inputs.recipe_key("digest", recipe, None)
    others = [
        inputs.recipe_key("other", recipe, None),
        inputs.recipe_key("digest", inputs.recipe_for(clip, 26, "bicubic"), None),
        inputs.recipe_key("digest", inputs.recipe_for(clip, 25, "bd"), None),
        inputs.recipe_key("digest", recipe, 5),
    ]
    assert len({key, *others}) == 5


def test_the_truth_scored_as_a_version_is_perfect(tmp_path: Path) -> None:
    frames = [texture(96, 128, 1), texture(96, 128, 1)]
    truth = scoring.RawVideo.write(tmp_path / "truth.rgb", frames, range(2))
    same = scoring.RawVideo.write(tmp_path / "same.rgb", frames, range(2))
    plan = scoring.Plan(("psnr-y", "ssim-y", "ldl", "warp", "warp-error", "tof"))
    ticks: list[int] = []
    own, found = scoring.score_clip(truth, [same], plan, lambda: ticks.append(1))
    means = found.means()
    assert "psnr-y" not in means, "infinite"
    assert (means["ssim-y"], means["ldl"], means["tof"]) == (1.0, 0.0, 0.0)
    assert means["warp-error"] == own.means()["warp-error"]
    assert len(ticks) == 2


def test_restored_frames_are_not_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would count in the method's peak of memory."""
    held: list[weakref.ref[np.ndarray]] = []
    most = 0

    def restore(job: methods.Job) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal most
        for index in job.wanted:
            image = np.array(job.frames[index])
            held.append(weakref.ref(image))
            most = max(most, sum(ref() is not None for ref in held))
            yield index, image

    method = methods.Interpolation("bicubic")
    monkeypatch.setattr(method, "restore", restore)
    monkeypatch.setattr(worker, "_method", method)
    images = [texture(16, 24, k) for k in range(6)]
    made = worker.restore(methods.Job("left", 25, images, (0, 1, 2, 4, 5), 6), tmp_path / "raw/left.rgb")
    assert most <= 2 and made.count == 5
    assert made.video.frames == (0, 1, 2, 4, 5)
    assert np.array_equal(made.video.pixels(), np.delete(images, 3, 0))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_processes_end_with_the_one_that_started_them() -> None:
    """Even when that one is killed."""
    script = (
        "import os, time; from sdatc_cli.bench.worker import Child; child = Child('scoring', print); "
        "print(child.submit(os.getpid).result(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        until = time.monotonic() + 20
        try:
            while time.monotonic() < until:
                os.kill(child, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
        os.kill(child, signal.SIGKILL)
    pytest.fail("the child lives on")


def test_names_that_are_not_unicode_are_kept(tmp_path: Path) -> None:
    clip = Path(os.fsdecode(b"\xff")).name
    write_json(tmp_path / "unit.json", {"clip": clip})
    assert read_json(tmp_path / "unit.json") == {"clip": clip}


def test_a_report_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("n" * 300, "file", "file/report"):
        with pytest.raises(OutputError, match="report"), opened(tmp_path / name, resume=False, overwrite=False):
            pass
