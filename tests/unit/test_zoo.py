"""`sdatc models` as a person uses it, with the manifest's base at a reduced width and its parts in local folders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import public_checkpoints as public
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdatc_cli.app import run
from sdatc_cli.zoo import assemble, manifest
from sdatc_models import weights
from tests.conftest import Clip

UNTRAINED = ["PCAM of the UNet", "PCAM of the decoder", "STAM", "CFW"]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that base is made of."""
    folder = public.write_diffusers_folder(tmp_path_factory.mktemp("mirror"))
    torch.save(public.diffbir(), folder / "v2.pth")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no network, and a base that is narrow."""
    monkeypatch.setenv("SDATC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setitem(manifest.MODELS, "base", replace(manifest.MODELS["base"], config=public.small_base))
    return tmp_path / "cache" / "models"


def refusal(capsys: pytest.CaptureFixture[str], code: int, *words: str | Path) -> str:
    assert run(["models", *map(str, words)]) == code
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("error: ")
    return said.err


def test_pull_list_verify_and_remove(mirror: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def listed() -> dict[str, dict[str, object]]:
        assert run(["models", "list", "--json"]) == 0
        return {model["name"]: model for model in json.loads(capsys.readouterr().out)}

    before = listed()
    assert before["lite"]["state"] == "embedded" and before["base"]["state"] == "not pulled"
    assert before["base"]["sources"] and before["base"]["folder"] is None
    assert "sdatc models pull base" in refusal(capsys, 4, "path", "base")

    assert run(["models", "pull", "base", "--source", str(mirror)]) == 0
    said = capsys.readouterr()
    assert said.out == "" and f"untrained: {', '.join(UNTRAINED)}" in said.err
    after = listed()["base"]
    assert after["state"] == "pulled" and after["folder"] == str(cache / "base")
    assert after["size"] == sum(path.stat().st_size for path in (cache / "base").iterdir())
    assert run(["models", "path", "base"]) == 0
    assert capsys.readouterr().out == f"{cache / 'base'}\n"
    assert run(["models", "list"]) == 0
    assert "base: pulled" in capsys.readouterr().out

    assert run(["models", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and sum("  base/" in line for line in lines) == 3
    assert run(["models", "pull", "base", "--source", str(mirror)]) == 0
    assert "here already" in capsys.readouterr().err

    assert "part of sdatc" in refusal(capsys, 2, "remove", "lite")
    assert run(["models", "remove", "base"]) == 0
    assert "base removed" in capsys.readouterr().out
    assert list(cache.iterdir()) == []
    assert "no pulled model 'base'" in refusal(capsys, 4, "remove", "base")
    assert "no pulled model" in refusal(capsys, 4, "remove", "../models")


def test_a_pulled_base_is_what_its_parts_were(mirror: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "pull", "base", "--source", str(mirror), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    model, lite = weights.load(cache / "base"), weights.load("lite")
    assert model.config == public.small_base() and model.config.guidance > 0
    assert load_file(cache / "base" / "unet.safetensors").popitem()[1].dtype == torch.float16
    unet, prefix = public.diffusers_unet().state_dict(), "down_blocks.1.attentions.0.proj_in.weight"
    assert torch.equal(model.unet.backbone.state_dict()[prefix], unet[prefix].half().float())
    stem = public.diffbir()["input_blocks.0.0.weight"]
    assert torch.equal(model.unet.control.encoder.conv_in.weight, stem.half().float())
    assert all(torch.equal(a, b) for a, b in zip(model.dcm.parameters(), lite.dcm.parameters(), strict=True))
    card = (cache / "base" / "README.md").read_text()
    assert all(f"- {module}\n" in card for module in UNTRAINED) and "RAIL++-M" in card and "v2.pth" in card
    pins = json.loads((cache / "base" / "sources.json").read_text())
    assert {pin["part"] for pin in pins} == {"unet", "vae", "text_encoder", "ControlNet"}
    assert {pin["sha256"] for pin in pins} == {weights.sha256(mirror / pin["file"]) for pin in pins}

    assert run(["doctor", "--model", "base", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["untrained"] == UNTRAINED
    assert run(["doctor", "--model", "base"]) == 0
    assert f"untrained, adds nothing yet: {', '.join(UNTRAINED)}" in capsys.readouterr().out


def test_upscale_knows_a_pulled_model_by_name_and_says_how_to_get_one(
    mirror: Path, tmp_path: Path, make_clip: Clip, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = make_clip(frames=2), tmp_path / "out.mkv"
    words = ["upscale", str(clip), "-o", str(out), "--model", "base", "--steps", "1", "--device", "cpu"]
    assert run(words) == 4
    assert "sdatc models pull base" in capsys.readouterr().err and not out.exists()
    assert run(["models", "pull", "base", "--source", str(mirror), "--quiet"]) == 0
    assert run(words) == 0
    assert out.stat().st_size > 0


def test_a_damaged_model_is_told_and_made_again_of_the_same_files(
    mirror: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(mirror, tmp_path / "own")
    pull = ["models", "pull", "base", "--source", str(own)]
    assert run(pull) == 0
    target = cache / "base" / "vae.safetensors"
    whole = target.read_bytes()
    target.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    capsys.readouterr()
    assert "run: sdatc models pull base" in refusal(capsys, 4, "verify", "base")

    source = own / "vae" / "diffusion_pytorch_model.safetensors"
    kept = source.read_bytes()
    save_file({name: value + 1 for name, value in load_file(source).items()}, source)
    assert "damaged or was changed" in refusal(capsys, 4, *pull[1:], "--quiet")
    source.write_bytes(kept)
    assert run(pull) == 0
    assert target.read_bytes() == whole and [p.name for p in cache.iterdir()] == ["base"]


def test_what_a_source_lacks_is_said(mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = shutil.copytree(mirror, tmp_path / "own")
    (own / "v2.pth").unlink()
    line = refusal(capsys, 4, "pull", "base", "--quiet", "--source", own)
    assert "no ControlNet to be had: unset HF_HUB_OFFLINE" in line and "own has none" in line and "lxq007" in line
    shutil.copy(mirror / "v2.pth", own)
    (own / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    assert "predicts 'v_prediction'" in refusal(capsys, 4, "pull", "base", "--quiet", "--source", own)
    nowhere = tmp_path / "no" / "such"
    assert "give a folder that exists" in refusal(capsys, 2, "pull", "base", "--source", nowhere)
    assert "no model 'huge' to pull" in refusal(capsys, 4, "pull", "huge")
    assert not (tmp_path / "cache" / "models" / "base").exists()


def test_what_predicts_v_is_told_from_what_predicts_noise(
    mirror: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DiffBIR v2.1 and its Stable Diffusion have the names and shapes of v2 and 2.1-base."""
    entry, small = manifest.MODELS["base-v"], public.small_base()
    full = entry.config()
    narrow = replace(full, vae=small.vae, unet=replace(small.unet, prediction=full.unet.prediction), pcam=small.pcam)
    monkeypatch.setitem(manifest.MODELS, "base-v", replace(entry, config=lambda: narrow))
    own = tmp_path / "v"
    own.mkdir()
    torch.save({"state_dict": public.original_stable_diffusion()}, own / "sd2.1-base-zsnr-laionaes5.ckpt")
    torch.save(public.diffbir(), own / "DiffBIR_v2.1.pt")
    assert run(["models", "pull", "base-v", "--source", str(own), "--quiet"]) == 0
    config = weights.load(cache / "base-v").config
    assert (config.unet.prediction, config.schedule.zero_snr) == ("v", True)

    folder = shutil.copytree(mirror, tmp_path / "folder")
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    words = ["models", "convert", str(folder), "-o", str(tmp_path / "made")]
    assert "'v_prediction', that of base 'epsilon'" in refusal(capsys, 4, *words[1:])
    assert run([*words, "--kind", "base-v"]) == 0
    assert weights.read_config(tmp_path / "made")[0].unet.prediction == "v"
    capsys.readouterr()
    line = refusal(capsys, 4, "convert", mirror, "--init", tmp_path / "made", "-o", tmp_path / "other")
    assert "predicts 'epsilon'" in line and "'v_prediction'" in line


def test_convert_reports_every_tensor(mirror: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = public.original_stable_diffusion()
    save_file(original, tmp_path / "sd.safetensors")
    out = tmp_path / "model"
    words = ["models", "convert", str(tmp_path / "sd.safetensors"), str(mirror / "v2.pth"), "-o", str(out)]
    assert run([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    seen = report["files"][str(tmp_path / "sd.safetensors")]
    assert sorted(sum(seen["used"].values(), seen["unused"])) == sorted(original)
    assert list(report["files"][str(mirror / "v2.pth")]["used"]) == ["ControlNet"]
    assert report["untrained"] == UNTRAINED
    model = weights.load(out)
    kept = {name.split(".")[0] + "." + name.split(".")[1] for name in report["kept"]}
    assert {"unet.pcam", "vae.pcam", "vae.stam", "vae.cfw", "dcm.conv_first"} <= kept
    assert not kept & {"unet.backbone", "unet.control", "unet.context", "vae.encoder", "vae.decoder"}
    assert (out / "README.md").is_file() and not list(tmp_path.glob(".*"))
    assert "already exists" in refusal(capsys, 6, *words[1:])
    assert "cannot be made" in refusal(capsys, 6, *words[1:-1], tmp_path / ("n" * 300))

    second = tmp_path / "second"
    (tmp_path / "empty").mkdir()
    assert "no file under the names" in refusal(capsys, 4, "convert", tmp_path / "empty", "-o", second)
    assert run(["models", "convert", str(mirror), "--init", str(out), "-o", str(second)]) == 0
    said = capsys.readouterr().out
    assert "UNet (" in said and "VAE (" in said and "ControlNet (" in said and f"written: {second}" in said
    assert all(torch.equal(a, b) for a, b in zip(weights.load(second).parameters(), model.parameters(), strict=True))


def test_convert_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\x00")
    unet = public.diffusers_unet().state_dict()
    del unet["conv_out.bias"]
    save_file(unet, tmp_path / "lacking.safetensors")
    reasons = {"other": "no part of Stable Diffusion 2", "torn": "cannot be read", "lacking": "UNet lacks 1 tensors"}
    for name, reason in (reasons | {"absent": "no such file"}).items():
        line = refusal(capsys, 4, "convert", tmp_path / f"{name}.safetensors", "-o", tmp_path / "out")
        assert reason in line and f"{name}.safetensors" in line
    assert not (tmp_path / "out").exists()


def test_convert_looks_at_its_files_before_it_makes_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "new_model", lambda config: pytest.fail("the networks were made"))
    for name, reason in {"film.mp4": "is no checkpoint", "torn.safetensors": "cannot be read"}.items():
        (tmp_path / name).write_bytes(b"\x08\x00")
        assert reason in refusal(capsys, 4, "convert", tmp_path / name, "-o", tmp_path / "out")
