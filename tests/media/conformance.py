# ruff: noqa: E501 (one case a line)
"""Prints the conformance table: what went in, what came out, whether everything survived.

    python -m tests.media.conformance > docs/conformance.md

Every row is a real file, made with ffmpeg, converted by the reader and the writer with each pixel doubled where the
network would be, and opened again.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from sdatc_cli.media.ffmpeg import ffmpeg_binary
from sdatc_cli.media.probe import MediaInfo, probe
from sdatc_cli.media.write import EncodeOptions
from tests.media.clips import FAST, convert, footage, psnr, read_all, take_apart, write_video

TONE = ["-f", "lavfi", "-i", "sine=440:d=0.48"]
HDR = ["-color_primaries", "bt2020", "-colorspace", "bt2020nc", "-pix_fmt", "yuv420p10le"]
X265 = ["-c:v", "libx265", "-x265-params", "log-level=none"]


@dataclass(frozen=True)
class Case:
    """`make`: arguments of ffmpeg for the source file, `out`: ending of the output."""

    what: str
    name: str
    make: list[str]
    out: str = "mkv"
    options: EncodeOptions = FAST
    sound: bool = False


CASES = [
    Case("H.264, B-frames, AAC", "a.mp4", [*TONE, "-c:v", "libx264", "-bf", "3", "-c:a", "aac"], "mp4", sound=True),
    Case("H.264 4:2:2 10 bit", "a.mkv", ["-c:v", "libx264", "-pix_fmt", "yuv422p10le"]),
    Case("H.264 4:4:4", "a.mkv", ["-c:v", "libx264", "-pix_fmt", "yuv444p"]),
    Case("H.264 monochrome", "a.mkv", ["-c:v", "libx264", "-pix_fmt", "gray"]),
    Case("H.264 full range BT.709", "a.mp4", ["-c:v", "libx264", "-pix_fmt", "yuvj420p", "-colorspace", "bt709"], "mp4"),
    Case("H.264, raw stream", "a.h264", ["-c:v", "libx264", "-bf", "2"]),
    Case("HEVC, FLAC", "a.mkv", [*TONE, *X265, "-c:a", "flac"], sound=True),
    Case("HEVC HDR, PQ", "a.mkv", [*X265, *HDR, "-color_trc", "smpte2084"], options=EncodeOptions("libx265", preset="ultrafast")),
    Case("HEVC HDR, HLG", "a.mp4", [*X265, *HDR, "-color_trc", "arib-std-b67"], "mp4", EncodeOptions("libx265", preset="ultrafast")),
    Case("VP9, Opus", "a.webm", [*TONE, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"], "webm",
         EncodeOptions("libvpx-vp9"), sound=True),
    Case("AV1", "a.mp4", ["-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1"], "mp4", EncodeOptions("libsvtav1", preset="12")),
    Case("MPEG-2, MP2", "a.ts", [*TONE, "-c:v", "mpeg2video", "-q:v", "2", "-bf", "2", "-c:a", "mp2"], "ts", sound=True),
    Case("MPEG-2, program stream", "a.mpg", [*TONE, "-c:v", "mpeg2video", "-q:v", "2", "-c:a", "mp2"], sound=True),
    Case("MPEG-4, B-frames, MP3", "a.avi", [*TONE, "-c:v", "mpeg4", "-q:v", "2", "-bf", "2", "-c:a", "libmp3lame"], "avi", sound=True),
    Case("Motion JPEG, PCM", "a.mov", [*TONE, "-c:v", "mjpeg", "-q:v", "2", "-c:a", "pcm_s16le"], "mov", sound=True),
    Case("ProRes, PCM", "a.mov", [*TONE, "-c:v", "prores_ks", "-c:a", "pcm_s24le"], "mov", EncodeOptions("prores_ks"), sound=True),
    Case("FFV1, RGB", "a.mkv", ["-c:v", "ffv1", "-pix_fmt", "bgr0"], options=EncodeOptions("ffv1")),
    Case("FFV1, 10 bit", "a.mkv", ["-c:v", "ffv1", "-pix_fmt", "yuv420p10le"], options=EncodeOptions("ffv1")),
    Case("GIF", "a.gif", []),
    Case("Windows Media", "a.wmv", [*TONE, "-c:v", "wmv2", "-q:v", "2", "-c:a", "wmav2"]),
    Case("Flash Video", "a.flv", [*TONE, "-c:v", "libx264", "-c:a", "aac"], sound=True),
    Case("pixels 16:11", "a.mkv", ["-c:v", "libx264", "-vf", "setsar=16/11"]),
    Case("odd size", "a.mkv", ["-c:v", "ffv1", "-vf", "crop=95:63:0:0:exact=1"]),
    Case("alpha", "a.mkv", ["-c:v", "ffv1", "-pix_fmt", "yuva420p"]),
    Case("interlaced", "a.ts", ["-vf", "tinterlace=interleave_top,setfield=tff", "-c:v", "mpeg2video", "-q:v", "2",
                                "-flags", "+ildct+ilme"], "mkv"),
    Case("starts at 5000 s", "a.ts", [*TONE, "-c:v", "libx264", "-c:a", "aac", "-output_ts_offset", "5000"], "mp4", sound=True),
]  # fmt: skip


def check(case: Case, source: Path, out: Path) -> list[str]:
    """What did not survive."""
    before, frames, _ = read_all(source)
    convert(source, out, case.options)
    after, written, damage = read_all(out)
    faults = list(damage)
    if len(frames) != len(written):
        faults.append(f"{len(written)} of {len(frames)} frames")
    base = before.start_time if source.suffix in (".ts", ".mpg") and case.out != "ts" else 0
    tick = 0.021 if case.out == "avi" else 0.0011
    old = [float(f.pts * f.time_base) - float(base) for f in frames if f.pts is not None and f.time_base]
    new = [float(f.pts * f.time_base) for f in written if f.pts is not None and f.time_base]
    shift = new[0] - old[0] if case.out == "ts" else 0.0
    if any(abs(a - b + shift) > tick for a, b in zip(old, new, strict=False)):
        faults.append("times")
    deep = max(before.bit_depth, after.bit_depth) > 8
    for a, b in zip(frames, written, strict=False):
        x, y = (f.image / 257 if f.image.dtype == "uint16" else f.image for f in (a, b))
        least = 20 if before.has_alpha else 30 if deep else 28  # dithered pictures compress badly
        if psnr(x.repeat(2, 0).repeat(2, 1), y) < least:
            faults.append("picture")
            break
    for name in ("rotation", "sample_aspect_ratio"):
        if getattr(before, name) != getattr(after, name):
            faults.append(name)
    if before.color.hdr != after.color.hdr or (before.bit_depth == 10) > (after.bit_depth >= 10):
        faults.append("depth")
    if case.sound:
        tracks = [
            [d for _, d in next(p for p in take_apart(path) if p.kind == "audio").packets] for path in (source, out)
        ]
        if tracks[0] != tracks[1] and case.out not in ("mp4",):  # ADTS headers of a TS have no place in MP4
            faults.append("sound")
    return faults


def row(case: Case, folder: Path, plain: Path, run: Callable[..., None]) -> tuple[str, bool]:
    """One line of the table."""
    source, out = folder / case.name, folder / f"out.{case.out}"
    run("-i", plain, *case.make, "-shortest", source)
    info = probe(source)
    try:
        faults = check(case, source, out)
        result = describe(probe(out))
    except Exception as error:  # the table shows every case, also a broken one
        faults, result = [f"{type(error).__name__}: {error}"], "-"
    notices = "; ".join(info.notices)
    verdict = "pass" if not faults else "FAIL: " + ", ".join(faults)
    return f"| {case.what} | {describe(info)} | {result} | {notices} | {verdict} |", not faults


def describe(info: MediaInfo) -> str:
    """A file in few words."""
    kinds = [s.codec for s in info.streams if s.kind == "audio"]
    tags = f" {info.color.hdr}" if info.color.hdr else ""
    return f"{info.path.suffix[1:]}: {info.codec} {info.width}x{info.height} {info.pix_fmt}{tags}" + "".join(
        f", {k}" for k in kinds
    )


def main() -> int:
    """Print the table; the exit code tells whether every row passed."""

    def run(*arguments: object) -> None:
        subprocess.run([ffmpeg_binary(), "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True,
                       stderr=subprocess.DEVNULL)  # fmt: skip

    print("# Conformance of the media layer\n")
    print(
        "Made by `python -m tests.media.conformance`. Pixels are doubled in place of the networks. `notices` are those"
    )
    print("of the input; sound that the output's container cannot hold is converted, and that is not compared.\n")
    print("| case | in | out | notices | result |\n| --- | --- | --- | --- | --- |")
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = write_video(folder / "plain.nut", footage(12, 96, 64), codec="ffv1", pix_fmt="yuv420p")
        for case in CASES:
            line, fine = row(case, folder, plain, run)
            print(line, flush=True)
            good &= fine
            for old in folder.glob("*.*"):
                if old != plain:
                    old.unlink()
        for degrees, hflip in ((90, False), (180, False), (270, True), (0, True)):
            source = write_video(folder / "a.mp4", footage(3, 96, 64), base=Fraction(1, 25), display=(degrees, hflip))
            convert(source, folder / "out.mkv", replace(FAST), overwrite=True)
            fine = probe(source).display_matrix == probe(folder / "out.mkv").display_matrix
            what = f"rotated by {degrees}" + (", mirrored" if hflip else "")
            print(f"| {what} | {describe(probe(source))} | {describe(probe(folder / 'out.mkv'))} | | "
                  f"{'pass' if fine else 'FAIL'} |")  # fmt: skip
            good &= fine
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
