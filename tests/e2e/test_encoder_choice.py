"""The encoder's own settings on the command line: pixel formats, options, presets, hardware."""

import os
import subprocess
import sys
from dataclasses import replace

import av
import pytest

from sdatc_cli.app import run
from sdatc_cli.engine.job import Job
from sdatc_cli.errors import UsageError
from sdatc_cli.media.encoders import EncodeOptions, plan_encoder
from sdatc_cli.media.probe import probe
from tests.media.clips import footage, write_video

USAGE, DEVICE = 2, 5
HARDWARE = [f"{family}_{kind}" for kind in ("nvenc", "qsv", "vaapi", "videotoolbox") for family in ("h264", "hevc")]


@pytest.fixture
def upscale(tiny_models, capfd):
    """Runs the command with a tiny model; returns (exit code, stderr)."""

    def call(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        code = run(["upscale", *map(str, words), "--model", str(tiny_models["still"]), "--steps", "1", "--quiet"])
        said = capfd.readouterr()
        assert said.out == ""
        return code, said.err

    return call


def test_format_and_options_reach_the_encoder(make_clip, upscale, tmp_path):
    source, out = make_clip(frames=9), tmp_path / "out.mkv"
    options = [word for option in ("g=3", "x264-params=scenecut=0", "x264-params=bframes=0", "tune=grain")
               for word in ("--encoder-option", option)]  # fmt: skip
    assert upscale(source, "-o", out, "--pix-fmt", "yuv444p10le", *options) == (0, "")
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p10le"
        packets = [p for p in container.demux(video=0) if p.size]
    assert [p.is_keyframe for p in packets] == [i % 3 == 0 for i in range(9)]
    assert [p.pts for p in packets] == sorted(p.pts for p in packets)  # no B-frames


def test_a_bitrate_takes_the_place_of_the_crf(make_clip, upscale, tmp_path):
    source = make_clip(frames=25, width=64, height=48)
    sizes = []
    for rate in ("40k", "400k"):
        assert upscale(source, "-o", tmp_path / f"{rate}.mkv", "--encoder-option", f"b={rate}")[0] == 0
        sizes.append((tmp_path / f"{rate}.mkv").stat().st_size)
    assert sizes[1] > 3 * sizes[0]


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (("--pix-fmt", "yuv999p"), "it takes gray, "),
        (("--pix-fmt", "cuda"), "it takes gray, "),
        (("--codec", "prores_ks", "--pix-fmt", "yuv420p"), "it takes yuv422p10le, yuv444p10le"),
        (("--encoder-option", "tunes=film"), "did you mean tune"),
        (("--encoder-option", "zzz=1"), "its own are 8x8dct, "),
        (("--encoder-option", "tune=nonsense"), "libx264 refuses tune=nonsense: "),
        (("--encoder-option", "bf=many"), 'Unable to parse "bf"'),
        (("--encoder-option", "x264-params=nonsense=1"), "Error parsing option 'nonsense = 1'"),
        (("--codec", "libx265", "--encoder-option", "x265-params=nonsense=1"), "Unknown option: nonsense"),
        (("--codec", "libx265", "--encoder-option", "profile=zz"), "profile"),
        (("--encoder-option", "color_trc=bt709"), "follows from the input"),
        (("--encoder-option", "profile=baseline", "--pix-fmt", "yuv444p"), "baseline"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_settings_are_one_line_before_any_work(words, sign, make_clip, upscale, tmp_path):
    code, said = upscale(make_clip(frames=2, width=32), "-o", tmp_path / "out.mkv", *words)
    assert code == USAGE and sign in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_settings_of_a_video_encoder_for_pictures(make_clip, upscale, tmp_path):
    source = make_clip(frames=1)
    for words in (("--pix-fmt", "yuv444p"), ("--encoder-option", "g=3")):
        code, said = upscale(source, "-o", tmp_path / "out.png", *words)
        assert code == USAGE and "pictures" in said


def test_they_belong_to_the_identity_of_the_work(make_clip, tmp_path):
    job = Job(probe(make_clip(frames=2)), tmp_path / "out.mkv")
    encodes = [
        EncodeOptions(),
        EncodeOptions(pix_fmt="yuv444p"),
        EncodeOptions(options=(("g", "3"),)),
        EncodeOptions(options=(("g", "4"),)),
    ]
    assert len({str(replace(job, encode=encode).identity()) for encode in encodes}) == 4


@pytest.mark.parametrize("codec", HARDWARE)
def test_hardware_encoders_work_or_say_what_to_use_instead(codec, make_clip, upscale, tmp_path):
    source, out = make_clip(frames=6, width=64, height=48), tmp_path / "out.mkv"
    code, said = upscale(source, "-o", out, "--codec", codec, "--preset", "fast")
    if code == 0:
        with av.open(str(out)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 6
    else:
        assert code in (USAGE, DEVICE) and said.count("\n") == 1
        assert f"use --codec {'libx264' if codec.startswith('h264') else 'libx265'}" in said
        assert not out.exists()


@pytest.mark.parametrize(
    ("codec", "preset", "setting"),
    [
        ("h264_nvenc", "slow", "p5"), ("hevc_nvenc", "p7", "p7"), ("h264_qsv", "ultrafast", "veryfast"),
        ("hevc_qsv", "slower", "slower"), ("libsvtav1", "veryfast", "10"), ("libsvtav1", "3", "3"),
        ("libx265", "slow", "slow"),
    ],
)  # fmt: skip
def test_speeds_have_x264s_names_for_every_encoder(codec, preset, setting, make_clip):
    info = probe(make_clip(frames=1))
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} in this PyAV")
    plan = plan_encoder(EncodeOptions(codec, 20, preset), "matroska", info, 256, 192)
    assert plan.options["preset"] == setting
    assert "20" in (plan.options.get(key) for key in ("crf", "cq", "global_quality")) and plan.quantiser is None
    with pytest.raises(UsageError):
        plan_encoder(EncodeOptions(codec, pix_fmt="yuva420p"), "matroska", info, 256, 192)


def test_a_preset_nobody_heeds_is_said(make_clip):
    info = probe(make_clip(frames=1))
    assert "no presets" in plan_encoder(EncodeOptions("ffv1", preset="slow"), "matroska", info, 128, 96).notices[0]
    assert plan_encoder(EncodeOptions("ffv1"), "matroska", info, 128, 96).notices == []


def test_the_same_command_gives_the_same_file_whatever_memory_held_before(make_clip, tiny_models, tmp_path):
    """x264 read memory that it had not written: where there is AVX-512, at most widths."""
    source = make_clip(frames=40, width=88, height=60)
    files = []
    for filling in (0, 1, 77):
        files.append(tmp_path / f"{filling}.mkv")
        words = ("upscale", source, "-o", files[-1], "--model", tiny_models["still"], "--steps", "1")
        command = [sys.executable, "-m", "sdatc_cli", *map(str, words)]
        environment = os.environ | {"MALLOC_PERTURB_": str(filling)}
        subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    assert len({path.read_bytes() for path in files}) == 1


@pytest.mark.parametrize(
    ("codec", "source", "chosen", "told"),
    [
        ("h264_nvenc", "yuv420p10le", "yuv420p", ["10-bit input is encoded in 8 bit (h264_nvenc, yuv420p)"]),
        ("hevc_nvenc", "yuv420p10le", "p010le", []),
        ("h264_qsv", "yuv444p", "nv12", ["colours are encoded more coarsely than the input has them (h264_qsv, nv12)"]),
        ("libx264", "yuv422p", "yuv422p", []),
    ],
)
def test_what_an_encoder_cannot_hold_of_the_pixels_is_told(codec, source, chosen, told, tmp_path):
    """H.264 in 10 bit is listed by encoders in hardware, and refused by nearly all cards."""
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} in this PyAV")
    info = probe(write_video(tmp_path / "in.mkv", footage(2, 64, 48), pix_fmt=source))
    plan = plan_encoder(EncodeOptions(codec), "matroska", info, 256, 192)
    assert plan.pix_fmt == chosen and plan.notices == told
