"""Which inputs a command line means, by names alone."""

from pathlib import Path

import pytest

from sdatc_cli.engine.batch import find_inputs, plan_batch, plan_previews
from sdatc_cli.errors import OutputError, UsageError

OUT = Path("out")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes empty files in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def found(*words: str, out: Path = OUT) -> tuple[list[str], bool]:
    inputs, many = find_inputs([Path(word) for word in words], out)
    return [str(path) for path in inputs], many


def test_what_a_folder_is(made):
    made("frames/f8.png", "frames/f9.png", "frames/f10.png", "frames/readme.txt")
    made("photos/cat.jpg", "photos/dog.jpg", "photos/.hidden.jpg")
    made("films/b.mp4", "films/a.MKV", "films/a.srt", "lone/picture.png", "empty/readme.txt", "films/deeper/c.mp4")
    assert found("frames") == (["frames"], False)
    assert found("lone") == (["lone"], False)
    assert found("empty") == (["empty"], False)
    assert found("photos") == (["photos/cat.jpg", "photos/dog.jpg"], True)
    assert found("photos", out=Path("slides.mp4")) == (["photos"], False)
    assert found("films") == (["films/a.MKV", "films/b.mp4"], True)


def test_a_folder_of_folders_of_frames(made):
    made("set/010/f1.png", "set/009/f1.png", "set/notes.txt", "set/empty/readme.txt", "set/.hidden/f1.png")
    told = []
    inputs, many = find_inputs([Path("set")], OUT, told.append)
    assert (list(map(str, inputs)), many) == (["set/009", "set/010"], True)
    assert len(told) == 1 and "passed over empty, notes.txt: no" in told[0]
    assert [str(task.out) for task in plan_batch(inputs, OUT, "libx264", False, False)] == ["out/009", "out/010"]


def test_what_a_folder_holds_besides_is_named_and_links_to_nothing_are_inputs(made):
    made("films/a.mp4", "films/a.srt", "films/.hidden", "films/deeper/c.mp4", *(f"films/n{i}.txt" for i in range(5)))
    Path("films/gone.mkv").symlink_to("nowhere.mkv")
    told = []
    inputs, _ = find_inputs([Path("films")], OUT, told.append)
    assert list(map(str, inputs)) == ["films/a.mp4", "films/gone.mkv"]
    assert len(told) == 1 and "films: passed over a.srt, deeper, n0.txt, n1.txt, n2.txt and 2 more" in told[0]


def test_patterns_and_order_and_repetitions(made):
    made("v10.mp4", "v9.mp4", "w.mp4", "only.mkv")
    assert found("v*.mp4") == (["v9.mp4", "v10.mp4"], True)
    assert found("w.mp4", "*.mp4", "./w.mp4") == (["w.mp4", "v9.mp4", "v10.mp4"], True)
    assert found("only.*") == (["only.mkv"], True)
    assert found("only.*", out=Path("big.mp4")) == (["only.mkv"], False)
    assert found("only.mkv") == (["only.mkv"], False)
    assert found("none*.mp4") == (["none*.mp4"], False)


def test_names_of_outputs(made):
    inputs = [Path(name) for name in ("a.mp4", "b.MOV", "c.webm", "d.wmv", "e.tiff", "f", "g.ts")]
    outputs = [task.out.name for task in plan_batch(inputs, OUT, "libx264", False, False)]
    assert outputs == ["a.mp4", "b.MOV", "c.mkv", "d.mkv", "e.png", "f.mkv", "g.ts"]
    outputs = [task.out.name for task in plan_batch(inputs, OUT, "vp9", False, False)]
    assert outputs == ["a.mp4", "b.MOV", "c.webm", "d.mkv", "e.png", "f.mkv", "g.mkv"]
    with pytest.raises(UsageError, match=r"a\.wmv and a\.flv would both be written to out/a\.mkv"):
        plan_batch([Path("a.wmv"), Path("a.flv")], OUT, "libx264", False, False)


def test_names_of_previews(made):
    made("in.mp4")
    tasks = plan_previews(Path("in.mp4"), Path("film.4x.mkv"), (90.0, 1.5), None, False)
    assert [(str(t.out), t.start, t.duration) for t in tasks] == [
        ("film.4x.preview-90.mkv", 90.0, 2.0),
        ("film.4x.preview-1.5.mkv", 1.5, 2.0),
    ]


def test_an_output_that_holds_another_input_is_refused(made):
    made("in/own/1.png", "in/own/2.png", "own/3.png")
    with pytest.raises(OutputError, match="holds one"):
        plan_batch([Path("in/own"), Path("own/3.png")], Path(), "h264", True, False)
