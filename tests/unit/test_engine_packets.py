"""Packet files, the decoding times made for them, and the journal's memory."""

import errno
import hashlib
import itertools
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdatc_cli.app import run
from sdatc_cli.engine.journal import Journal, Segment, input_identity, read_journal, unfinished, work_folder
from sdatc_cli.engine.packets import Packet, PacketFile, decoding_times, read_packets, reorder_delay, timed
from sdatc_cli.errors import OutputError
from sdatc_cli.media.probe import probe
from tests.conftest import texture

PACKET = st.builds(Packet, st.integers(-(2**62), 2**62), st.integers(0, 2**40), st.booleans(), st.binary(max_size=50))


@given(packets=st.lists(PACKET, max_size=20))
def test_packets_come_back_as_they_were(packets, tmp_path_factory):
    file = PacketFile(tmp_path_factory.mktemp("packets") / "a.packets")
    for packet in packets:
        file.write(packet)
    digest = file.close()
    assert list(read_packets(file.path)) == packets
    assert [p.pts for p in read_packets(file.path, payloads=False)] == [p.pts for p in packets]
    content = file.path.read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, digest)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(0, 4), st.randoms(use_true_random=False))
def test_decoding_times_rise_and_never_pass_the_time_of_showing(gaps, reach, rng):
    """Packets shuffled within `reach` places, as B-frames are."""
    shown = list(itertools.accumulate(gaps))
    order = sorted(range(len(shown)), key=lambda place: place + rng.uniform(0, reach))
    coded = [shown[place] for place in order]
    rank = {pts: place for place, pts in enumerate(shown)}
    delay = max(place - rank[pts] for place, pts in enumerate(coded))
    times = list(itertools.islice(decoding_times(iter(shown), delay), len(shown)))
    assert all(a < b for a, b in itertools.pairwise(times))
    assert all(dts <= pts for dts, pts in zip(times, coded, strict=True))


def test_joined_packets_last_until_the_next_and_end_together(tmp_path):
    """Two stretches, pictures out of order, uneven gaps; the very last picture stands for 30, but not last in the file.
    So that decoding times, too, add up to what is shown, the packet behind it ends as late as that one."""
    stretches = [[(0, 5), (8, 5), (4, 5)], [(12, 5), (40, 30), (20, 5)]]
    paths = [tmp_path / f"{number}.packets" for number in range(2)]
    for path, packets in zip(paths, stretches, strict=True):
        file = PacketFile(path)
        for pts, duration in packets:
            file.write(Packet(pts, duration, False, b"x"))
        file.close()
    joined = list(timed(paths, 1))
    assert [(p.pts, p.duration) for p, _ in joined[:5]] == [(0, 4), (8, 4), (4, 4), (12, 8), (40, 30)]
    times = [time for _, time in joined]
    assert times == [-4, 0, 4, 8, 12, 20]
    last = joined[-1][0]
    assert (last.pts, last.payload) == (20, b"x")
    assert last.pts + last.duration <= 70
    assert times[-1] - times[0] + last.duration == 70


def test_no_packet_ends_before_it_begins(tmp_path):
    """The last pictures follow each other faster than usual, and the one that is decoded last is shown before them."""
    shown = [*range(0, 800, 40), 765, 770]
    coded = [0, *(stamp for k in range(1, 20, 3) for stamp in (shown[k + 2], *shown[k : k + 2]))]
    file = PacketFile(tmp_path / "a.packets")
    for pts in coded:
        file.write(Packet(pts, 20, False, b"x"))
    file.close()
    assert sorted(coded) == shown
    assert min(packet.duration for packet, _ in timed([file.path], reorder_delay(file.path))) == 1


def test_the_delay_of_a_stretch_is_read_from_its_file(tmp_path):
    file = PacketFile(tmp_path / "a.packets")
    for pts in (0, 4, 2, 1, 3, 5):
        file.write(Packet(pts, 1, pts == 0, b"x"))
    file.close()
    assert reorder_delay(file.path) == 2


def segment(name: str, first: int, content: bytes) -> Segment:
    digest = hashlib.sha256(content).hexdigest()
    return Segment(name, first, first + 48, 48, len(content), digest, 2, 47, 0, None)


def test_the_journal_keeps_whole_stretches_and_drops_the_rest(tmp_path):
    out = tmp_path / "out.mp4"
    folder = work_folder(out)
    journal = Journal(folder, out)
    assert journal.begin({"version": 1, "input": "a"}, resume=True) is None
    for i in (2, 0, 1):  # as they were finished
        (folder / f"{i}.packets").write_bytes(bytes([i]))
        journal.append(segment(f"{i}.packets", 48 * i, bytes([i])))
    (folder / "3.packets").write_bytes(b"unfinished")
    (folder / "1.packets").write_bytes(b"damaged")
    journal.close()
    (found,) = unfinished(tmp_path)
    assert (found.output, found.frames, found.running) == (out, 144, False)
    again = Journal(folder, out)
    assert (
        again.begin({"version": 1, "input": "a"}, resume=True) == "going on after 96 finished frames of an earlier run"
    )
    assert [s.name for s in again.segments] == ["0.packets", "2.packets"]
    assert sorted(p.name for p in folder.iterdir()) == ["0.packets", "2.packets", "journal.jsonl", "lock"]
    assert read_journal(folder)[1] == again.segments
    again.close()


def journal_of(out: Path, *lines: str) -> Path:
    journal = Journal(work_folder(out), out)
    journal.begin({"version": 1, "input": "a"}, resume=True)
    journal.close()
    with (journal.folder / "journal.jsonl").open("a") as file:
        file.writelines(line + "\n" for line in lines)
    return journal.folder


def test_what_is_no_unfinished_work_is_neither_listed_nor_touched(tmp_path, capsys):
    mine, link = tmp_path / ".mine.sdatc", tmp_path / ".link.mp4.sdatc"
    mine.mkdir()
    (mine / "letter.txt").write_text("precious")
    (tmp_path / ".file.mp4.sdatc").write_text("precious")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link.symlink_to(journal_of(elsewhere / "link.mp4"))
    odd = json.dumps(asdict(segment("0.packets", 0, b"")) | {"frames": "7"})
    work = [journal_of(tmp_path / "odd.mp4", odd), journal_of(tmp_path / "a\nb.mp4")]
    assert {(found.folder, found.frames, found.running) for found in unfinished(tmp_path)} == {
        (folder, 0, False) for folder in work
    }
    assert [path.name for path in mine.iterdir()] == ["letter.txt"]
    assert run(["jobs", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run(["jobs", str(tmp_path), "--clean"]) == 0
    assert capsys.readouterr().out == "2 unfinished jobs deleted\n"
    assert {path.name for path in tmp_path.iterdir()} == {".mine.sdatc", ".file.mp4.sdatc", link.name, "elsewhere"}
    assert unfinished(elsewhere)


@pytest.mark.parametrize("name", ["n" * 244 + ".mp4", "n" * 251 + ".mp4", "\u00e9" * 125 + ".mp4", "\udcff" * 250])
def test_work_for_an_output_of_any_name_has_a_place(name, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    for parent, home in ((None, tmp_path), (work, work)):
        out, other = tmp_path / name, tmp_path / (name[:-5] + "x" + name[-4:])
        folders = [work_folder(path, parent) for path in (out, other)]
        assert folders[0] != folders[1] and (
            parent or len(os.fsencode(name)) > 248 or folders[0].name == f".{name}.sdatc"
        )
        for folder in folders:
            journal = Journal(folder, out if folder == folders[0] else other)
            journal.begin({"version": 1, "input": "a"}, resume=True)
            journal.close()
        assert {found.output for found in unfinished(home)} == {out, other}


def test_work_is_listed_by_a_lock_that_can_only_be_read(tmp_path, monkeypatch, capsys):
    folder, real = journal_of(tmp_path / "out.mp4"), os.open

    def reading(path, flags, *mode, **more):
        if flags & (os.O_CREAT | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", reading)
    assert [found.running for found in unfinished(tmp_path)] == [False]
    assert run(["jobs", str(tmp_path), "--clean"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0 unfinished jobs deleted" and said[1].endswith("stopped") and folder.is_dir()
    (folder / "lock").unlink()
    assert [found.running for found in unfinished(tmp_path)] == [False]


def test_a_journal_of_another_input_is_thrown_away(tmp_path):
    out = tmp_path / "out.mp4"
    journal = Journal(work_folder(out), out)
    journal.begin({"version": 1, "input": "a"}, resume=True)
    journal.close()
    again = Journal(work_folder(out), out)
    assert "the input has changed" in (again.begin({"version": 1, "input": "b"}, resume=True) or "")
    with pytest.raises(OutputError, match="another sdatc"):
        Journal(work_folder(out), out)
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_takes_the_place_of_another_is_noticed(tmp_path):
    """Of its size, and older than the newest one; copied elsewhere, the folder differs in nothing but times."""
    for k in range(3):
        Image.fromarray(texture(32, 32, k)).save(tmp_path / f"{k}.bmp")
    before = input_identity(probe(tmp_path))
    assert input_identity(probe(tmp_path)) == before
    os.utime(tmp_path / "1.bmp", (1e9, 1e9))
    after = input_identity(probe(tmp_path))
    assert after != before and after | {"mtime_ns": 0} == before | {"mtime_ns": 0}
