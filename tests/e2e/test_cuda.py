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


def test_recordings_give_the_same_pictures(tiny_models, recwarn):
    """Of clips of several lengths and sizes, the second of each played from the recording of the first."""
    torch.manual_seed(0)
    recorded, plain = (weights.load(tiny_models["lively"]).to("cuda") for _ in range(2))
    plain.unet.recordings.on = False
    for frames, height, width in ((5, 24, 32), (5, 24, 32), (2, 24, 32), (5, 32, 32), (5, 32, 32)):
        clip, options = torch.rand(frames, 3, height, width), RestoreOptions(steps=3)
        ours, expected = (restorer.restore(clip, range(frames), options) for restorer in (recorded, plain))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)
    assert not [w for w in recwarn if "CUDA graphs" in str(w.message)]


def test_the_command_runs_on_a_card(sdatc, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=7, sound=True), tmp_path / "out.mp4"
    code, result, said = sdatc(source, out, "--device", "cuda")
    assert code == 0, said
    assert result["device"].startswith("cuda") and result["frames"] == 7
