"""The path on a CUDA card. Skipped without one; failing instead where SDATC_REQUIRE_CUDA=1 says that there is one."""

import os

import pytest
import torch

from sdatc_models import weights
from sdatc_models.restorer import RestoreOptions
from tests.conftest import write_clip

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available() and os.environ.get("SDATC_REQUIRE_CUDA") != "1", reason="no CUDA device here"
    ),
]


def test_a_card_restores_as_the_cpu_does(tiny_models):
    torch.manual_seed(0)
    clip, options = torch.rand(5, 3, 24, 32), RestoreOptions(steps=2, guidance=1.0)
    on_cpu = weights.load(tiny_models["lively"]).restore(clip, range(5), options)
    on_card = weights.load(tiny_models["lively"]).to("cuda").restore(clip, range(5), options).cpu()
    assert (on_card - on_cpu).abs().mean() < 1 / 255


def test_the_command_runs_on_a_card(sdatc, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=7, sound=True), tmp_path / "out.mp4"
    code, result, said = sdatc(source, out, "--device", "cuda")
    assert code == 0, said
    assert result["device"].startswith("cuda") and result["frames"] == 7
