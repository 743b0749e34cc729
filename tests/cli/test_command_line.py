"""The words of the command line: help, versions, usage errors. Nothing here runs a network."""

import errno
import json
import os
import subprocess
import sys

import pytest

from sdatc_cli import __version__
from sdatc_cli.app import app, run

OPTIONS = [
    "--output",
    "--scale",
    "--model",
    "--fast",
    "--steps",
    "--solver",
    "--fidelity",
    "--detail",
    "--guidance",
    "--flow",
    "--color",
    "--seed",
    "--device",
    "--dtype",
    "--tile",
    "--codec",
    "--crf",
    "--preset",
    "--pix-fmt",
    "--encoder-option",
    "--start",
    "--duration",
    "--preview",
    "--sample",
    "--skip-existing",
    "--resume",
    "--work-dir",
    "--overwrite",
    "--json",
    "--quiet",
    "--debug",
]

BAD = {
    "--scale 7": "--scale 7: choose 2, 3 or 4",
    "--scale two": "--scale",
    "--steps 0": "--steps 0: choose a number from 1 to 1000",
    "--steps 1001": "--steps 1001",
    "--fidelity 1.5": "--fidelity 1.5: choose a number from 0 to 1",
    "--detail 2.1": "--detail 2.1: choose a number from 0 to 2",
    "--guidance -1": "--guidance -1: choose a number from 0 to 1000",
    "--guidance inf": "--guidance inf: choose a number from 0 to 1000",
    "--guidance nan": "--guidance nan",
    "--start -3": "--start -3",
    "--start soon": "--start soon",
    "--duration 0": "--duration 0: choose a number above 0",
    "--seed -1": "--seed -1",
    "--tile 8": "--tile 8",
    f"--tile {'9' * 5000}": "--tile 9999",
    f"--start {'9' * 400}": "--start 9999",
    f"--start {'9' * 400}:00:00": "--start 9999",
    f"--duration {'9' * 400}": "--duration 9999",
    f"--preview {'9' * 400}": "--preview 9999",
    f"--seed {'9' * 400}": "--seed 9999",
    f"--crf {'9' * 400}": "--crf 9999",
    "--tile big": "--tile big",
    "--solver euler": "euler",
    "--flow raff": "raff",
    "--color red": "red",
    "--dtype int8": "int8",
    "--quantiser coarse": "--quantiser coarse: choose auto, none or a number from 0 to 51",
    "--quantiser 52": "--quantiser 52",
    "--quantiser nan": "--quantiser nan",
    "--crf -4": "--crf -4",
    "--preset sluggish": "--preset sluggish",
    "--codec h264_nvenc --preset p8": "--preset p8",
    "--codec hevc --preset sluggish": "--preset sluggish",
    "--codec libsvtav1 --preset 14": "--preset 14",
    "--encoder-option tune": "--encoder-option tune: write NAME=VALUE",
    "--encoder-option =film": "--encoder-option =film",
    "--encoder-option tunes=film": "did you mean tune",
    "--pix-fmt yuv999p": "does not take pixel format 'yuv999p'",
    "--preview soon": "--preview soon",
    "--preview 1,,2": "--preview",
    "--preview 1 --start 2": "--start",
    "--skip-existing -y": "--skip-existing and -y",
    "--nonsense": "--nonsense",
}


def sdatc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sdatc_cli", *arguments], capture_output=True, text=True)


def test_version_and_help_do_not_import_torch():
    code = (
        "import sys; from sdatc_cli.app import run\n"
        "for words in (['--help'], ['upscale', '--help'], ['--version'], []):\n"
        "    assert run(words) == 0, words\n"
        "heavy = {'torch', 'av', 'cv2', 'diffusers', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"sdatc {__version__}" in done.stdout


def test_every_option_of_upscale_is_explained(capsys):
    assert run(["upscale", "--help"]) == 0
    text = capsys.readouterr().out
    assert [option for option in OPTIONS if option not in text] == []


def test_the_help_of_upscale_is_in_panels(capsys):
    assert run(["upscale", "--help"]) == 0
    text = capsys.readouterr().out
    titles = ["Arguments:", "Options:", "Quality:", "Encoding:", "Part of the video:", "Many files:", "Run:"]
    places = [text.index(f"\n{title}\n") for title in titles]
    assert places == sorted(places)
    assert places[3] < text.index("--encoder-option NAME=VALUE") < places[4]


def test_every_command_and_option_has_a_help_text(capsys):
    def commands(group, prefix):
        for command in group.registered_commands:
            yield [*prefix, command.name or command.callback.__name__.replace("_", "-")], command.callback
        for sub in group.registered_groups:
            yield from commands(sub.typer_instance, [*prefix, sub.name or sub.typer_instance.info.name])

    for words, callback in commands(app, []):
        assert (callback.__doc__ or "").strip(), words
        assert run([*words, "--help"]) == 0, words
    capsys.readouterr()


@pytest.mark.parametrize("words", BAD, ids=lambda words: words.replace(" ", "")[:30])
def test_bad_options_are_one_line_and_code_2(words, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert run(["upscale", "in.mp4", "-o", str(out), *words.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert BAD[words] in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--crf", "9" * 5000],
        ["degrade", "in.mp4", "-o", "out.mp4", "--fps", "1e9999999"],
        ["degrade", "in.mp4", "-o", "out.mp4", "--frames", "99999999999999999999"],
        ["degrade", "in.mp4", "-o", "out.mp4", "--preset", "nope"],
        ["train", "run", "--stage", "dcm", "-i", "a", "-o", "b", "--steps", "1", "--batch", "99999999999"],
        ["train", "run", "--stage", "dcm", "-i", "a", "-o", "b", "--steps", "1", "--seed", "9" * 400],
    ],
    ids=lambda words: words[0] + words[-2],
)
def test_values_beyond_reason_are_refused_at_once(words, capsys):
    assert run(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --") and len(said) < 200 and words[-2] in said


@pytest.mark.parametrize("words", [["upscale"], ["upscale", "in.mp4"], ["frobnicate"]])
def test_missing_and_unknown_words_are_one_line_and_code_2(words, capsys):
    assert run(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_module_and_script_are_the_same_program():
    assert sdatc("--version").stdout == f"sdatc {__version__}\n"
    assert sdatc("upscale", "nowhere.mp4", "-o", "x.mp4").returncode == 3


def test_completion_script_is_offered():
    done = sdatc("--show-completion", "bash")
    assert done.returncode == 0 and "complete" in done.stdout


def test_a_missing_extra_is_one_line():
    from sdatc_cli.app import explain

    code, line = explain(ModuleNotFoundError("No module named 'jinja2'", name="jinja2"))
    assert code == 1 and "sdatc[bench]" in line


def test_memory_that_runs_out_anywhere_is_one_line():
    from sdatc_cli.app import explain

    code, line = explain(MemoryError())
    assert code == 5 and "--tile" in line


def test_an_unexpected_exception_is_one_line_and_debug_shows_the_rest(monkeypatch, capsys):
    from sdatc_cli import settings

    def broken(*arguments):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(settings, "one_of", broken)
    assert run(["upscale", "in.mp4", "-o", "out.mp4"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "internal error (ZeroDivisionError: two lines)" in said and "--debug" in said
    assert run(["upscale", "in.mp4", "-o", "out.mp4", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_that_no_command_catches_is_said(monkeypatch, capsys):
    from sdatc_cli import settings

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(settings, "one_of", stopped)
    assert run(["upscale", "in.mp4", "-o", "out.mp4"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device here that is always full")
def test_work_goes_on_when_nobody_takes_what_is_said(make_clip, tmp_path):
    read, closed = os.pipe()
    os.close(read)
    source = make_clip(width=64, height=64)
    for name, stream in {"pipe.mp4": closed, "full.mp4": os.open("/dev/full", os.O_WRONLY)}.items():
        words = [sys.executable, "-m", "sdatc_cli", "degrade", str(source), "-o", str(tmp_path / name), "--scale", "2"]
        assert subprocess.run(words, stderr=stream, timeout=60).returncode == 0, name
        assert (tmp_path / name).is_file(), name
        os.close(stream)


@pytest.mark.parametrize(
    ("words", "code"),
    {
        "jobs LONG": 3,
        "train run --stage dcm -i LONG -o run --steps 1": 3,
        "bench --dataset LONG": 3,
        "bench --dataset . --metrics psnr -o LONG": 6,
        "models verify LONG": 4,
        "models path LONG": 4,
        "doctor --model LONG": 4,
    }.items(),
)
def test_names_that_are_too_long_are_one_line(words, code, tmp_path, monkeypatch, make_clip, capsys):
    make_clip()
    monkeypatch.chdir(tmp_path)
    assert run(words.replace("LONG", 300 * "x").split()) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and 300 * "x" in said and "File name too long" in said


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, 3), (errno.ENOTDIR, 3), (errno.EROFS, 6)])
def test_paths_that_cannot_be_used_are_named(number, code):
    from sdatc_cli.app import explain

    assert explain(OSError(number, os.strerror(number), b"a\xff")) == (code, f"a\udcff: {os.strerror(number)}")


@pytest.mark.parametrize("command", ["upscale", "degrade"])
def test_what_cannot_be_read_is_an_input_that_fails(command, tmp_path, monkeypatch, capsys):
    secret = tmp_path / "secret.mp4"
    secret.write_text("junk")
    monkeypatch.setattr(os, "access", lambda *arguments, **more: False)  # as for anybody but root
    assert run([command, str(secret), "-o", str(tmp_path / "out.mp4")]) == 3
    assert "secret.mp4" in capsys.readouterr().err


def test_flow_that_needs_a_missing_package_is_a_usage_error(monkeypatch, capsys):
    from sdatc_cli import settings

    monkeypatch.setattr(settings.importlib.util, "find_spec", lambda name: None)
    assert run(["upscale", "in.mp4", "-o", "out.mp4", "--flow", "raft"]) == 2
    assert "pip install torchvision" in capsys.readouterr().err


def test_doctor_tells_what_is_here(tiny_models, capsys):
    assert run(["doctor", "--model", str(tiny_models["still"]), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["devices"][0]["name"] == "cpu" and "fp32" in findings["devices"][0]["dtypes"]
    assert findings["encoders"]["libx264"] and findings["ffmpeg"]["path"]
    assert findings["model"]["usable"]
    assert {len(digest) for digest in findings["model"]["sha256"].values()} == {64}
    assert run(["doctor", "--model", str(tiny_models["still"])]) == 0
    assert "device cpu" in capsys.readouterr().out


def test_doctor_names_an_unusable_model_and_fails(tmp_path, capsys):
    assert run(["doctor", "--model", str(tmp_path / "nothing")]) == 4
    said = capsys.readouterr()
    assert "nothing" in said.out and said.err.count("\n") == 1
