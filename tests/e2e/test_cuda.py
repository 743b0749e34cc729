"""The path on a CUDA card. Skipped without one; failing instead where SDATC_REQUIRE_CUDA=1 says that there is one."""

import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from sdatc_cli.engine.memory import free_bytes
from sdatc_cli.engine.restore import restore_frames
from sdatc_cli.media.read import Frame
from sdatc_cli.train.loop import Limits
from sdatc_cli.train.prepare import prepare
from sdatc_cli.train.run import RunPlan, pick_precision, train_stage
from sdatc_models import weights
from sdatc_models.config import tiny
from sdatc_models.recordings import Recordings
from sdatc_models.restorer import FILLS_A_CARD, RestoreOptions
from tests.conftest import write_clip
from tests.unit.train_helpers import PLAN, STAGES, ignore, make_shards, recipe_of

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
    on_card = weights.load(tiny_models["lively"], "cuda").restore(clip, range(5), options).cpu()
    assert (on_card - on_cpu).abs().mean() < 1 / 255


def test_a_card_computes_in_float32_where_it_is_told_to(tiny_models):
    """Not in TF32, of which the error would be a hundred times this."""
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 64)
    loaded = [weights.load(tiny_models["lively"], device) for device in ("cpu", "cuda")]
    with torch.inference_mode():
        codes = [restorer.encode(image.to(restorer.device), None).cpu() for restorer in loaded]
    assert (codes[1] - codes[0]).abs().max() < 1e-5 * codes[0].abs().max()


def test_a_clip_may_lie_on_the_card(tiny_models):
    clip, options = torch.rand(3, 3, 24, 32), RestoreOptions(steps=1)
    restorer = weights.load(tiny_models["lively"], "cuda")
    assert torch.equal(restorer.restore(clip.cuda(), range(3), options), restorer.restore(clip, range(3), options))


def test_guided_clips_have_the_same_bits_every_time(tiny_models):
    torch.manual_seed(0)
    clip, options = torch.rand(5, 3, 96, 128), RestoreOptions(steps=4, guidance=1.0)
    restorer = weights.load(tiny_models["lively"], "cuda")
    first, second = (restorer.restore(clip, range(5), options) for _ in range(2))
    assert torch.equal(first, second)


def test_large_frames_are_made_one_by_one_and_shared(tiny_models):
    """A card takes them as the CPU does; a clip that shares frames gives the same picture as one that does not."""
    torch.manual_seed(0)
    film, options = torch.rand(7, 3, 208, 200), RestoreOptions(steps=2, solver="dpmpp")
    assert film[0, 0].numel() > FILLS_A_CARD
    on_cpu = weights.load(tiny_models["lively"]).restore(film[2:], range(2, 7), options)
    shared, alone = (weights.load(tiny_models["lively"], "cuda") for _ in range(2))
    shared.restore(film[:5], range(5), options)
    ours = shared.restore(film[2:], range(2, 7), options)
    assert torch.equal(ours, alone.restore(film[2:], range(2, 7), options))
    assert (ours.cpu() - on_cpu).abs().mean() < 1 / 255


def test_frames_leave_a_card_as_they_are(tiny_models):
    """What is copied while the next clip is made comes out whole, in order, and the same as from the CPU."""
    rng = np.random.default_rng(0)
    frames = [Frame(rng.integers(0, 256, (24, 32, 3), np.uint8), i, Fraction(1, 25), i) for i in range(12)]
    options, made = RestoreOptions(steps=2), []
    for device in ("cpu", "cuda"):
        restorer = weights.load(tiny_models["lively"], device)
        network = lambda clip, at, restorer=restorer: restorer.restore(clip, at, options)  # noqa: E731
        made.append(list(restore_frames(frames, network)))
    for ours, expected in zip(*made, strict=True):
        assert (ours.index, ours.pts, ours.image.dtype) == (expected.index, expected.pts, np.uint8)
        assert np.abs(ours.image.astype(int) - expected.image).mean() < 1


def test_recordings_give_the_same_pictures(tiny_models, recwarn):
    """Of clips of several lengths and sizes, the second of each played from the recording of the first."""
    torch.manual_seed(0)
    recorded, plain = (weights.load(tiny_models["lively"], "cuda") for _ in range(2))
    plain.unet.recordings.on = False
    for frames, height, width in ((5, 24, 32), (5, 24, 32), (2, 24, 32), (5, 32, 32), (5, 32, 32)):
        clip, options = torch.rand(frames, 3, height, width), RestoreOptions(steps=3)
        ours, expected = (restorer.restore(clip, range(frames), options) for restorer in (recorded, plain))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)
    assert not [w for w in recwarn if "CUDA graphs" in str(w.message)]


def test_a_recording_gives_its_own_numbers_from_the_first_pass_on(tiny_models):
    """A run that is resumed begins with another clip, whose bits shall be those of a run that came by it."""
    restorer, options = weights.load(tiny_models["lively"], "cuda"), RestoreOptions(steps=1)
    torch.manual_seed(0)
    clip = torch.rand(5, 3, 24, 32)
    first, second = (restorer.restore(clip, range(5), options) for _ in range(2))
    assert torch.equal(first, second)


def test_recordings_of_several_clip_lengths_share_their_memory(tiny_models):
    """And none spoils what another one plays."""
    restorer, options = weights.load(tiny_models["lively"], "cuda"), RestoreOptions(steps=1)
    torch.manual_seed(0)
    clips = [torch.rand(frames, 3, 24, 32) for frames in (5, 2, 3)]
    first, second = ([restorer.restore(clip, range(len(clip)), options) for clip in clips] for _ in range(2))
    recorded = restorer.unet.recordings._kept.values()
    assert len(recorded) == 3 and len({recording.graph.pool() for recording in recorded}) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_network_that_cannot_be_recorded_is_run_as_it_is():
    """On the caller's stream: torch leaves another one current where a recording does not come to its end."""

    class Waiting(torch.nn.Linear):
        def forward(self, input):
            return super().forward(input) * float(input[0, 0, 0, 0])

    network, x, recordings = Waiting(4, 4).to("cuda"), torch.rand(1, 2, 3, 4, device="cuda"), Recordings()
    stream = torch.cuda.current_stream()
    with torch.inference_mode():
        with pytest.warns(UserWarning, match="CUDA graphs"):
            first = recordings.run(network, x)
        assert torch.cuda.current_stream() == stream
        assert torch.equal(first, network(x)) and torch.equal(recordings.run(network, x), first)
        assert not recordings.on
    # And PyTorch's allocator has come out of it: one that took itself for recording still would fail here.
    del first
    torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < 1 << 28


@pytest.fixture
def fresh_accelerator():
    """accelerate keeps the first device and number format of a process for all that follow."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_on_a_card(stage, tiny_models, tmp_path):
    """With a loss on held-out batches and sample pictures, which take the network's other ways."""
    shards, recipe = make_shards(tmp_path), recipe_of(stage)
    others = tmp_path / "others"
    prepare(tmp_path / "photos", None, others, replace(PLAN, seed=9), ignore)
    limits = Limits(steps=3, log_every=1)
    plan = RunPlan(stage, tiny(), recipe, shards, tmp_path / "run", limits, tiny_models["lively"], held_out=others)
    plan = replace(plan, precision=pick_precision("auto"), sample_minutes=0.0)
    trainer = train_stage(plan, ignore, ignore)
    assert trainer.accelerator.device.type == "cuda" and trainer.step == 3
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3


def test_memory_that_earlier_work_left_is_free():
    device = torch.device("cuda")
    torch.cuda.empty_cache()
    before = free_bytes(device)
    torch.empty(1 << 30, dtype=torch.uint8, device=device)
    assert torch.cuda.memory_reserved(device) >= 1 << 30  # PyTorch keeps it for later
    assert abs(free_bytes(device) - before) < 1 << 28  # other programs may be at work


def test_the_command_runs_on_a_card(sdatc, tmp_path):
    source, out = write_clip(tmp_path / "in.mkv", frames=7, sound=True), tmp_path / "out.mp4"
    code, result, said = sdatc(source, out, "--device", "cuda")
    assert code == 0, said
    assert result["device"].startswith("cuda") and result["frames"] == 7
