"""Model folders: what is written is what is read, and damage is reported in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdatc_models import weights
from sdatc_models.config import PCAMConfig, tiny, to_json
from sdatc_models.restorer import RestoreOptions, Restorer
from sdatc_models.weights import WeightsError


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Restorer]:
    torch.manual_seed(0)
    restorer = Restorer(tiny())
    with torch.no_grad():
        for parameter in restorer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    folder = tmp_path_factory.mktemp("model")
    weights.save(restorer, folder, torch.float32)
    return folder, restorer


@pytest.fixture
def folder(good: tuple[Path, Restorer], tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(good[0], tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        weights.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, part: str, tensors: dict[str, torch.Tensor]) -> None:
    """Replace a part and its checksum."""
    save_file(tensors, folder / f"{part}.safetensors")
    sign(folder, part)


def sign(folder: Path, part: str) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["sha256"][f"{part}.safetensors"] = weights.sha256(folder / f"{part}.safetensors")
    (folder / "config.json").write_text(json.dumps(content))


def configure(folder: Path, section: str, **fields: Any) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["model"][section].update(fields)
    (folder / "config.json").write_text(json.dumps(content))


def test_what_is_saved_is_loaded(good: tuple[Path, Restorer]) -> None:
    folder, restorer = good
    loaded = weights.load(folder)
    assert loaded.config == restorer.config
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    state = loaded.state_dict()
    assert state.keys() == restorer.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in restorer.state_dict().items())
    assert set(weights.verify(folder)) == {"dcm.safetensors", "vae.safetensors", "unet.safetensors"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_lie_in_the_faster_layout_new_and_loaded(good: tuple[Path, Restorer], dtype: torch.dtype) -> None:
    for restorer in (good[1], weights.load(good[0], dtype=dtype)):
        convolutions = [m for m in restorer.modules() if isinstance(m, torch.nn.Conv2d)]
        assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)


def test_half_precision_files_restore_almost_the_same(good: tuple[Path, Restorer], tmp_path: Path) -> None:
    folder, restorer = good
    weights.save(restorer, tmp_path)
    assert load_file(tmp_path / "unet.safetensors").popitem()[1].dtype == torch.float16
    size, half = ((f / "unet.safetensors").stat().st_size for f in (folder, tmp_path))
    assert half < 0.6 * size
    clip, options = torch.rand(1, 3, 16, 16), RestoreOptions(steps=3)
    first, second = (weights.load(f).restore(clip, [0], options) for f in (folder, tmp_path))
    torch.testing.assert_close(first, second, rtol=0, atol=0.02)


def test_dtype_is_applied(good: tuple[Path, Restorer]) -> None:
    loaded = weights.load(good[0], dtype=torch.bfloat16)
    parts = {name: {p.dtype for p in part.parameters()} for name, part in loaded.named_children()}
    assert parts["dcm"] == parts["unet"] == {torch.bfloat16} and loaded.vae.patch is not None
    assert {p.dtype for p in loaded.vae.patch.parameters()} == {torch.float32}
    assert loaded.vae.dtype == loaded.vae.decoder.conv_out.weight.dtype == torch.bfloat16


def test_a_flipped_bit_is_found(folder: Path) -> None:
    path = folder / "vae.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert f"{path} is damaged" in refusal(folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "unet.safetensors").unlink()
    assert "unet.safetensors is missing" in refusal(folder)


def test_a_file_without_a_checksum_is_not_read(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    del content["sha256"]["dcm.safetensors"]
    (folder / "config.json").write_text(json.dumps(content))
    assert "dcm.safetensors" in refusal(folder)


def test_a_truncated_file_with_a_right_checksum_cannot_be_read(folder: Path) -> None:
    path = folder / "dcm.safetensors"
    path.write_bytes(path.read_bytes()[:300])
    sign(folder, "dcm")
    assert "dcm.safetensors cannot be read" in refusal(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    tensors = load_file(folder / "vae.safetensors")
    del tensors["patch.decode.weight"]
    write(folder, "vae", tensors)
    assert "patch.decode.weight" in refusal(folder)


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    write(folder, "dcm", load_file(folder / "dcm.safetensors") | {"surplus": torch.zeros(2)})
    assert "surplus" in refusal(folder)


def test_a_wrong_shape_is_named(folder: Path) -> None:
    tensors = load_file(folder / "dcm.safetensors")
    tensors["conv_last.bias"] = torch.zeros(4)
    write(folder, "dcm", tensors)
    assert "conv_last.bias" in refusal(folder)


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    configure(folder, "unet", channels=[16, 16])
    assert "unet.safetensors does not fit its config" in refusal(folder)


@pytest.mark.parametrize(
    "section, fields",
    [
        ("dcm", {"heads": 3}),
        ("dcm", {"window": 0}),
        ("vae", {"channels": []}),
        ("vae", {"groups": 3}),
        ("unet", {"channels": []}),
        ("schedule", {"start": 5000}),
    ],
)
def test_sizes_that_fit_no_network_are_refused(folder: Path, section: str, fields: dict[str, Any]) -> None:
    configure(folder, section, **fields)
    assert " config" in refusal(folder).replace("/config", " config")


def test_an_unknown_config_field_is_refused(folder: Path) -> None:
    configure(folder, "vae", surprise=1)
    assert "config.vae has unknown fields: surprise" in refusal(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {}}', '{"model": 3, "sha256": {}}', "\x00"])
def test_a_config_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "is not a model configuration" in refusal(folder)


def test_checksums_must_be_a_table(folder: Path) -> None:
    content = {"model": json.loads(to_json(tiny())), "sha256": 7}
    (folder / "config.json").write_text(json.dumps(content))
    assert "is not a model configuration" in refusal(folder)


def test_no_folder_and_no_such_name(tmp_path: Path) -> None:
    assert "no model" in refusal(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no model 'huge'"):
        weights.load("huge")


def test_ablation_switches_leave_parts_out(good: tuple[Path, Restorer]) -> None:
    folder, _ = good
    plain = weights.load(folder, pcam=PCAMConfig(kind="none", size=4))
    assert plain.config.pcam.kind == "none"
    assert not any("prompts" in name for name in plain.state_dict())
    with pytest.raises(WeightsError, match="missing"):
        weights.load(folder, pcam=PCAMConfig(kind="prompt", size=4))
