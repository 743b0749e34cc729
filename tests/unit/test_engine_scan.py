"""Stretches made apart are the stretches of the whole run: the clips, the frames that are read, and the clock."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from sdatc_cli.engine import scan
from sdatc_cli.engine.restore import restore_frames, restore_part
from sdatc_cli.engine.scan import AROUND, task_frames, tasks
from sdatc_cli.media.clock import FrameClock
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import Frame, FrameReader
from tests.conftest import frames_of, texture, write_clip

LENGTH = 6


def clip_dependent(clip, frames):
    """Four times larger; every frame depends on its place in the clip, the clip's length and its neighbours."""
    large = clip.repeat_interleave(4, 2).repeat_interleave(4, 3)
    place = torch.linspace(0, 1, len(frames))[:, None, None, None]
    return (large + large.mean((0, 2, 3), keepdim=True) + place + frames[0] / 1000) / 3.5


@pytest.mark.parametrize("seed", range(12))
def test_a_part_of_a_stream_gives_the_frames_of_the_whole(seed):
    """Random scenes, gaps and beginnings."""
    rng = np.random.default_rng(seed)
    index, scene, stream = int(rng.integers(0, 9)), 0, []
    pictures = [texture(16, 24, k) for k in range(8)]
    for _ in range(34):
        stream.append(Frame(pictures[scene], index, Fraction(1, 25), index))
        index += 1 + (int(rng.integers(1, 9)) if rng.random() < 0.06 else 0)
        if rng.random() < 0.2:
            scene = (scene + 1 + int(rng.integers(0, 6))) % 8
    whole = {frame.index: frame.image for frame in restore_frames(stream, clip_dependent)}
    made = {}
    for first in range(0, stream[-1].index + 1, LENGTH):
        part = [f for f in stream if first - AROUND <= f.index < first + LENGTH + AROUND]
        made |= {f.index: f.image for f in restore_part(part, clip_dependent, 4, first, first + LENGTH)}
    assert list(made) == list(whole)
    assert all(np.array_equal(made[i], whole[i]) for i in whole)


def plan_of(path, start=None, duration=None):
    info = probe(path)
    clock = FrameClock(info.time_base or Fraction(1, 25), Fraction(25), 0.0)
    with FrameReader(info, start, duration) as reader:
        return info, list(tasks(reader.decoded(), clock, LENGTH)), clock.state


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("in.mkv", ["-c:v", "libx264", "-g", "9", "-bf", "3", "-x264-params", "open-gop=1"]),
        ("in.mp4", ["-c:v", "libx264", "-g", "9", "-bf", "2"]),
        ("in.ts", ["-c:v", "mpeg2video", "-g", "9", "-bf", "2"]),
        ("in.avi", ["-c:v", "mpeg4", "-g", "9"]),
        ("reordered.avi", ["-c:v", "mpeg4", "-g", "9", "-bf", "1"]),
        ("interlaced.mkv", ["-vf", "interlace", "-c:v", "libx264", "-g", "9", "-flags", "+ilme+ildct"]),
    ],
)
@pytest.mark.parametrize("part", [(None, None), (0.36, 1.2)])
def test_every_task_reads_the_frames_of_the_whole_pass(name, how, part, ffmpeg, tmp_path, monkeypatch):
    """And begins at a keyframe where the file allows it."""
    source = tmp_path / name
    ffmpeg("-i", write_clip(tmp_path / "plain.mkv", frames=60, width=64, height=48, scenes=2), *how, source)
    info, plan, _ = plan_of(source, *part)
    with FrameReader(info, *part) as reader:
        whole = {frame.index: frame for frame in reader}
    covered = list(itertools.chain.from_iterable(range(task.first, task.stop) for task in plan))
    assert set(whole) <= set(covered) and sum(task.frames for task in plan) == len(whole)
    begun = []

    class Watched(FrameReader):
        def decoded(self, place=None):
            begun.append(place)
            return super().decoded(place)

    monkeypatch.setattr(scan, "FrameReader", Watched)
    for task in plan:
        wanted = [i for i in whole if task.first - AROUND <= i < task.stop + AROUND]
        frames = list(task_frames(task, info, *part))
        assert [frame.index for frame in frames] == wanted
        assert all(np.array_equal(f.image, whole[f.index].image) and f.pts == whole[f.index].pts for f in frames)
    assert begun[0] is None
    if part[0] is None and name != "reordered.avi":  # whose times are others when one begins in the middle
        assert sum(place is None for place in begun) <= len(plan) / 2, begun


def test_a_keyframe_that_gives_other_pictures_is_not_trusted(tmp_path):
    """The place of a task is moved to where decoding gives something else: it is read from the start instead."""
    source = write_clip(tmp_path / "in.mkv", frames=40)
    info, plan, _ = plan_of(source)
    last = plan[-1]
    for other in (
        scan.Mark(3, plan[0].marks[3].pts, 0),
        scan.Mark(20, 10**9, 0),
        scan.Mark(9, plan[1].marks[0].pts, 0),
    ):
        task = scan.Task(last.number, last.first, last.stop, last.marks, other, last.clock)
        assert [f.index for f in task_frames(task, info, None, None)] == [mark.index for mark in last.marks]


def test_the_clock_before_each_stretch_is_that_of_the_whole_run(tmp_path):
    """Times that must be moved, across borders of stretches."""
    source, base = tmp_path / "in.mkv", Fraction(1, 1000)
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.codec_context.time_base = base
        for i, image in enumerate(frames_of(20, 32, 24)):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = (40 * i if i < 3 else 120 + i), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    info = probe(source)

    def clock() -> FrameClock:
        return FrameClock(Fraction(1, 100), Fraction(25), 0.0)

    with FrameReader(info) as reader:
        plan = list(tasks(reader.decoded(), clock(), LENGTH))
    with FrameReader(info) as reader:
        whole, states = clock(), []
        for frame in reader:
            states.append(whole.state)
            whole.tick(frame.pts, frame.time_base)
    assert whole.state.repaired > 5
    assert [task.clock for task in plan] == states[::LENGTH]


def test_another_input_is_noticed(tmp_path):
    from sdatc_cli.errors import InputError

    source = write_clip(tmp_path / "in.mkv", frames=30)
    info, plan, _ = plan_of(source)
    write_clip(source, frames=9)
    with pytest.raises(InputError, match="changed while it was read"):
        list(task_frames(plan[-1], info, None, None))
