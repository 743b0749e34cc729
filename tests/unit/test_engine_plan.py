"""The plan against its rules, on any length, start and set of cuts."""

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdatc_cli.engine.plan import LENGTH, STRIDE, Blender, Clip, clips, weight

LENGTHS = st.integers(0, 60)
FIRST = st.integers(0, 20)
CUTS = st.sets(st.integers(1, 59))


def plan(length: int, first: int, cuts: set[int]) -> list[Clip[int]]:
    return list(clips((first + i, first + i, i in cuts) for i in range(length)))


def scenes(length: int, first: int, cuts: set[int]) -> list[range]:
    borders = sorted({0, length} | {c for c in cuts if c < length})
    return [range(first + a, first + b) for a, b in itertools.pairwise(borders)]


@given(LENGTHS, FIRST, CUTS)
def test_clips_hold_consecutive_frames_and_cover_every_one(length, first, cuts):
    made = plan(length, first, cuts)
    for clip in made:
        assert clip.items == tuple(range(clip.start, clip.stop))
        assert 1 <= len(clip.items) <= LENGTH
    assert {i for clip in made for i in clip.items} == set(range(first, first + length))
    starts = [clip.start for clip in made]
    assert starts == sorted(set(starts))


@given(LENGTHS, FIRST, CUTS)
def test_no_clip_crosses_a_cut_and_only_short_scenes_have_short_clips(length, first, cuts):
    for scene, group in _by_scene(length, first, cuts):
        assert [clip.opens for clip in group] == [True] + [False] * (len(group) - 1)
        assert {len(clip.items) for clip in group} == {min(LENGTH, len(scene))}
        assert (group[0].start, group[-1].stop) == (scene.start, scene.stop)


@given(LENGTHS, FIRST, CUTS)
def test_clips_inside_a_scene_start_on_the_absolute_grid_and_overlap(length, first, cuts):
    for _, group in _by_scene(length, first, cuts):
        assert all(clip.start % STRIDE == 0 for clip in group[1:-1])
        assert all(a.stop - b.start >= LENGTH - STRIDE for a, b in itertools.pairwise(group))


@given(st.integers(12, 60), st.integers(1, 11))
def test_a_run_that_starts_later_soon_meets_the_same_clips(length, later):
    whole = {(c.start, c.stop) for c in plan(length, 0, set())}
    late = [(c.start, c.stop) for c in plan(length - later, later, set())]
    assert set(late[1:]) <= whole


@given(LENGTHS, FIRST, CUTS)
def test_weights_sum_to_one_exactly_and_frames_come_out_in_order(length, first, cuts):
    made = plan(length, first, cuts)
    blender = Blender()
    constant = torch.full((1, 1, 3), 0.1)
    out = [pair for clip in made for pair in blender.push(clip.start, [constant] * len(clip.items), clip.opens)]
    out += blender.flush()
    assert [index for index, _ in out] == list(range(first, first + length))
    assert all(torch.equal(image, constant) for _, image in out)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_blend_is_the_weighted_mean_of_all_copies(length, seed):
    made = plan(length, 0, set())
    rng = np.random.default_rng(seed)
    copies = [torch.from_numpy(rng.random((len(clip.items), 3, 2, 2), np.float32)) for clip in made]
    blender = Blender()
    out = dict(p for c, images in zip(made, copies, strict=True) for p in blender.push(c.start, images, c.opens))
    out |= dict(blender.flush())
    for index in range(length):
        pairs = [
            (weight(index - clip.start, len(clip.items)), images[index - clip.start].double())
            for clip, images in zip(made, copies, strict=True)
            if clip.start <= index < clip.stop
        ]
        mean = sum(w * image for w, image in pairs) / sum(w for w, _ in pairs)
        np.testing.assert_allclose(out[index], mean, atol=1e-6)


def test_a_gap_in_the_indices_is_a_border():
    made = list(clips((i, i, False) for i in [*range(7), *range(9, 12)]))
    assert [(clip.start, clip.stop, clip.opens) for clip in made] == [(0, 5, True), (2, 7, False), (9, 12, True)]


def test_a_crossfade_of_two_frames_rises_by_thirds():
    blender = Blender()
    list(blender.push(0, torch.zeros(5, 1, 1, 1), opens=True))
    list(blender.push(3, torch.ones(5, 1, 1, 1), opens=False))
    values = [float(image.item()) for _, image in blender.flush()]
    np.testing.assert_allclose(values, [1 / 3, 2 / 3, 1, 1, 1], rtol=1e-6)


def test_frames_are_let_go_as_soon_as_no_later_clip_can_touch_them():
    blender = Blender()
    held = 0
    for clip in clips((i, i, False) for i in range(1000)):
        list(blender.push(clip.start, torch.zeros(len(clip.items), 1), clip.opens))
        held = max(held, len(blender._means))
    assert held <= LENGTH + STRIDE


def _by_scene(length: int, first: int, cuts: set[int]):
    made = plan(length, first, cuts)
    for scene in scenes(length, first, cuts):
        if len(scene):
            yield scene, [clip for clip in made if clip.start in scene]
