"""Reduction, scene cuts, and the stream from frames to restored frames."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from sdatc_cli.engine.resize import lanczos_matrix, reduce
from sdatc_cli.engine.restore import Leaving, restore_frames, to_pixels, to_tensor
from sdatc_cli.engine.scenes import mark_cuts
from sdatc_cli.errors import DeviceError, InputError
from sdatc_cli.media.read import Frame


def enlarge(clip, frames):
    """A network that any clip cutting leaves alone: every pixel four times."""
    return clip.repeat_interleave(4, -1).repeat_interleave(4, -2)


def picture(seed: int, height: int = 40, width: int = 64) -> np.ndarray:
    """A smooth random picture (height, width, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def frames_of(images, first: int = 0) -> list[Frame]:
    return [Frame(image, 7 * i, Fraction(1, 90), first + i) for i, image in enumerate(images)]


@pytest.mark.parametrize(("n_in", "n_out"), [(64, 32), (64, 48), (67, 34), (16, 16)])
def test_lanczos_agrees_with_pillow(n_in, n_out):
    image = picture(1, n_in, n_in)
    ours = reduce(to_tensor(image[None]), n_out, n_out)[0].permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(image).resize((n_out, n_out), Image.Resampling.LANCZOS))
    assert np.abs(np.round(ours * 255) - theirs).max() <= 1
    np.testing.assert_allclose(lanczos_matrix(n_in, n_out).sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("size", [(240, 320), (360, 480), (64, 65), (480, 1)])
def test_reduction_by_bands_is_that_by_the_whole_matrix(size):
    torch.manual_seed(0)
    images = torch.rand(2, 3, 480, 640)
    rows, columns = (torch.from_numpy(lanczos_matrix(*edges)).double() for edges in zip((480, 640), size, strict=True))
    expected = (rows @ images.double() @ columns.T).clamp(0, 1)
    found = reduce(images, *size)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(found, reduce(images, *size))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_survive_the_way_to_the_network_and_back(dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (2, 9, 7, 3)).astype(dtype)
    back = [to_pixels(image, np.dtype(dtype)).numpy() for image in to_tensor(pixels)]
    assert np.array_equal(np.stack(back), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_rounded_to_the_nearest_level_and_kept_in_range(dtype):
    peak = np.iinfo(dtype).max
    levels = torch.tensor([-3.0, 0.4, 0.6, peak - 0.6, peak - 0.4, peak + 7.0])
    found = to_pixels((levels / peak).expand(3, 1, -1), np.dtype(dtype))
    assert found.tolist() == [[[n] * 3 for n in (0, 0, 1, peak - 1, peak, peak)]]


def test_cuts_are_found_where_they_are_and_not_in_pans_or_flashes():
    wide = picture(3, 40, 200)
    pan = [wide[:, x : x + 64] for x in range(0, 20, 2)]
    flash = [np.clip(pan[-1].astype(int) + 60, 0, 255).astype(np.uint8), pan[-1]]
    other = [picture(4)] * 3
    flags = [cut for _, cut in mark_cuts(frames_of([*pan, *flash, *other, *pan[:2]]))]
    assert [i for i, cut in enumerate(flags) if cut] == [0, 12, 15]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 17])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_frame_comes_out_once_with_its_timestamps(count, scale):
    source = frames_of([picture(i // 6) for i in range(count)], first=4)
    out = list(restore_frames(source, enlarge, scale))
    assert [(f.index, f.pts, f.time_base) for f in out] == [(f.index, f.pts, f.time_base) for f in source]
    assert all(f.image.shape == (40 * scale, 64 * scale, 3) and f.image.dtype == np.uint8 for f in out)
    if scale == 4:
        assert all(np.array_equal(f.image[::4, ::4], s.image) for f, s in zip(out, source, strict=True))


def test_a_later_start_gives_the_same_frames_as_the_whole_run():
    """The network here depends on the clip it is given, as the real one does."""

    def clip_dependent(clip, frames):
        return (enlarge(clip, frames) + torch.linspace(0, 1, len(frames))[:, None, None, None]) / 2

    source = frames_of([picture(i // 8) for i in range(24)])
    whole = list(restore_frames(source, clip_dependent))
    for done in range(25):
        rest = list(restore_frames(source, clip_dependent, wanted=lambda i, done=done: i >= done))
        assert [f.index for f in rest] == list(range(done, 24))
        assert all(np.array_equal(a.image, b.image) for a, b in zip(rest, whole[done:], strict=True))


def test_what_a_card_still_copies_comes_out_once_it_is_at_the_next_clip(monkeypatch):
    """A card's copies stood for by their events alone: each is waited for, the frames are the same and in order."""
    began, waited = [], []

    def network(clip, frames):
        began.append(frames[0])
        return enlarge(clip, frames)

    class Copy:
        def synchronize(self):
            waited.append(len(began))

    source = frames_of([picture(i // 6) for i in range(15)])
    expected = list(restore_frames(source, enlarge))
    begin = Leaving.begin
    monkeypatch.setattr(Leaving, "begin", lambda frame, image: replace(begin(frame, image), copied=Copy()))
    out = list(restore_frames(source, network))
    assert [f.index for f in out] == list(range(15))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(out, expected, strict=True))
    assert began == [0, 1, 6, 7, 12]
    assert waited == [3] * 1 + [4] * 5 + [5] * 9  # a frame ends with the clip after its last, and waits for one more


def test_what_a_card_has_made_comes_out_before_a_failure(monkeypatch):
    class Copy:
        def synchronize(self):
            pass

    def network(clip, frames):
        if frames[0] == 7:
            raise RuntimeError("an illegal memory access")
        return enlarge(clip, frames)

    begin, out = Leaving.begin, []
    monkeypatch.setattr(Leaving, "begin", lambda frame, image: replace(begin(frame, image), copied=Copy()))
    with pytest.raises(RuntimeError, match="illegal"):
        for frame in restore_frames(frames_of([picture(i // 6) for i in range(15)]), network):
            out.append(frame.index)
    assert out == list(range(6))


def test_no_clip_reaches_across_a_cut():
    seen = []

    def note(clip, frames):
        seen.append(tuple(frames))
        return enlarge(clip, frames)

    list(restore_frames(frames_of([picture(i // 7) for i in range(21)]), note))
    assert all(frames[0] // 7 == frames[-1] // 7 for frames in seen)


@pytest.mark.parametrize("sizes", [[(15, 64)], [(64, 15)], [(40, 64), (40, 66)]])
def test_frames_that_cannot_be_restored_are_an_input_error(sizes):
    with pytest.raises(InputError):
        list(restore_frames(frames_of([picture(0, *size) for size in sizes]), enlarge))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("scale", [2, 4])
def test_values_that_are_no_numbers_are_an_error_and_no_black_frame(bad, scale):
    def network(clip, frames):
        out = enlarge(clip, frames)
        out[-1, 0, 0, 0] = bad
        return out

    with pytest.raises(DeviceError, match=r"frame 4: .*no numbers"):
        list(restore_frames(frames_of([picture(0)] * 5), network, scale))
