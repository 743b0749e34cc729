"""Which encoder with which settings and pixel format suits a source, an output container and a person's wishes."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import cv2
from av.codec.codec import Codec, UnknownCodecError
from av.codec.context import CodecContext
from av.video.format import VideoFormat

from sdatc_cli.errors import UsageError
from sdatc_cli.media.color import is_rgb
from sdatc_cli.media.info import Mastering, MediaInfo

CONTAINERS = {
    ".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".ts": "mpegts",
    ".m2ts": "mpegts", ".mts": "mpegts", ".avi": "avi", ".nut": "nut",
}  # fmt: skip
_ALIASES = {
    "h264": "libx264", "x264": "libx264", "avc": "libx264", "hevc": "libx265", "h265": "libx265", "x265": "libx265",
    "av1": "libsvtav1", "svtav1": "libsvtav1", "vp9": "libvpx-vp9", "prores": "prores_ks",
}  # fmt: skip
# FFmpeg would write any codec into these as private data that nothing can play.
_ONLY = {
    "mpegts": {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vvc"},
    "avi": {"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "ffv1", "vp9", "av1"},
}
_EVEN_ONLY = {"libx264", "libx265", "libsvtav1", "mpeg2video"}
_LEAST_X265 = 64  # x265 4.1 writes beyond its buffers for narrower frames
_HARDWARE = ("_nvenc", "_qsv", "_vaapi", "_videotoolbox", "_amf", "_v4l2m2m", "_vulkan", "_mf")
_SOFTWARE = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp8": "libvpx", "vp9": "libvpx-vp9"}
_LOSSLESS = {"ffv1", "prores_ks", "prores", "prores_aw", "huffyuv", "ffvhuff", "utvideo", "png"}  # or of fixed quality
# x264's names of speeds in the words of others; what is not named here is passed on as it is.
_SVT_PRESETS = {"ultrafast": "12", "superfast": "11", "veryfast": "10", "faster": "9", "fast": "8", "medium": "7",
                "slow": "5", "slower": "4", "veryslow": "2", "placebo": "0"}  # fmt: skip
_NVENC_PRESETS = {"ultrafast": "p1", "superfast": "p1", "veryfast": "p1", "faster": "p2", "fast": "p3", "medium": "p4",
                  "slow": "p5", "slower": "p6", "veryslow": "p7", "placebo": "p7"}  # fmt: skip
_QSV_PRESETS = {"ultrafast": "veryfast", "superfast": "veryfast", "placebo": "veryslow"}
_AMF_PRESETS = {"medium": "balanced"} | dict.fromkeys(("slow", "slower", "veryslow", "placebo"), "quality")
_AMF_PRESETS |= dict.fromkeys(("ultrafast", "superfast", "veryfast", "faster", "fast"), "speed")
_ENCODING, _VIDEO = 1, 16  # FFmpeg's AV_OPT_FLAG_ENCODING_PARAM and AV_OPT_FLAG_VIDEO_PARAM
# Options that follow from the input; another value would make the output lie about its frames.
_OURS = {"aspect", "sar", "color_primaries", "color_trc", "colorspace", "color_range", "chroma_sample_location",
         "pixel_format", "time_base"}  # fmt: skip
_AVX512 = 256  # OpenCV's CPU_AVX512_SKX: what x264 calls avx512
_RATE = {"b", "qp", "global_quality"}  # options that take the place of the CRF
_SHOWN = 64  # names in a message


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode the video. `options` are further settings of the encoder by its own names.

    `crf` is x264's scale; encoders without one get the quantiser that comes nearest. `frame_rate` is for stills, which
    have no times of their own. `preset` is one of x264's names, or the encoder's own.
    """

    codec: str = "libx264"
    crf: int = 16
    preset: str = "medium"
    pix_fmt: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    frame_rate: Fraction | None = None


@dataclass(frozen=True)
class EncoderPlan:
    """What to open: an encoder's name, pixel format, settings, and a fixed quantiser where it has no CRF."""

    codec: str
    pix_fmt: str
    options: dict[str, str]
    quantiser: int | None = None
    notices: list[str] = field(default_factory=list)


def container_format(path: Path) -> str:
    """FFmpeg's name of the container that an output's ending stands for.

    Raises UsageError for an ending that is not known.
    """
    name = CONTAINERS.get(path.suffix.lower())
    if name is None:
        raise UsageError(
            f"output ending {path.suffix!r} is not known; use {' '.join(CONTAINERS)}, an image's, or a folder's name"
        )
    return name


def find_codec(name: str) -> Codec:
    """A video encoder by name or common alias.

    Raises UsageError.
    """
    try:
        codec = Codec(_ALIASES.get(name.lower(), name), "w")
    except (UnknownCodecError, ValueError) as error:
        if hardware(name):
            raise UsageError(f"--codec {name} is not built into this PyAV; use --codec {software_for(name)}") from error
        raise UsageError(
            f"encoder {name!r} is not in this FFmpeg; try libx264, libx265, libsvtav1, libvpx-vp9, ffv1 or prores_ks"
        ) from error
    if codec.type != "video":
        raise UsageError(f"{name!r} does not encode video")
    return codec


def hardware(name: str) -> bool:
    """Whether an encoder's name is that of one in hardware, which a machine may lack."""
    return name.endswith(_HARDWARE)


def software_for(name: str) -> str:
    """The software encoder for the format of a hardware encoder."""
    return _SOFTWARE.get(name.partition("_")[0], "libx264")


def holds(container: str, codec: str) -> bool:
    """Whether a container can hold what an encoder makes."""
    found = find_codec(codec)
    if container in _ONLY:
        return found.canonical_name in _ONLY[container]
    try:
        av.open(BytesIO(), "w", format=container).add_stream(found.name, rate=25)
    except ValueError:
        return False
    return True


def plan_encoder(options: EncodeOptions, container: str, info: MediaInfo, width: int, height: int) -> EncoderPlan:
    """Settle encoder, pixel format and settings.

    Raises UsageError if they do not exist or do not fit together or the container.
    """
    codec = find_codec(options.codec)
    family = codec.canonical_name
    if container in _ONLY and family not in _ONLY[container]:
        raise UsageError(f"{container} cannot hold {family} video; use .mkv")
    if codec.name == "libx265" and width < _LEAST_X265:
        raise UsageError(f"libx265 cannot encode {width}x{height}: it needs a width of {_LEAST_X265}; use libx264")
    notices: list[str] = []
    pix_fmt = _pix_fmt(options.pix_fmt, codec, info, width, height, notices)
    own = options_of(codec, options)
    settings, quantiser = _quality(codec.name, own, options, notices)
    if codec.name == "prores_ks" and "profile" not in settings:
        settings |= {"profile": "4" if "444" in pix_fmt else "3", "vendor": "apl0"}
    if info.mastering is not None and info.color.hdr == "PQ":
        _merge(settings, _mastering_settings(codec.name, info.mastering, notices))
    for key, value in options.options:
        _merge(settings, {key: value})
    return EncoderPlan(codec.name, pix_fmt, settings, quantiser, notices)


def options_of(codec: Codec, options: EncodeOptions) -> set[str]:
    """The names of the encoder's own options.

    Raises UsageError if `options` names one that the encoder does not have, or that is not a person's to set.
    """
    supported: Any = CodecContext.create(codec, "w").supported_options
    own = {option.name for option in supported.private}
    known = own | {o.name for o in supported.generic if o.flags & _ENCODING and o.flags & _VIDEO}
    for key, _ in options.options:
        if key in _OURS:
            raise UsageError(f"encoder option {key!r} follows from the input; it cannot be set")
        if key not in known:
            near = get_close_matches(key, sorted(known), 3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its own are {_some(own)}"
            raise UsageError(f"encoder {codec.name} has no option {key!r}; {hint}")
    return own


def _merge(settings: dict[str, str], more: dict[str, str]) -> None:
    """Add settings; lists of an encoder's own parameters are joined."""
    for key, value in more.items():
        settings[key] = f"{settings[key]}:{value}" if key.endswith("-params") and key in settings else value


def steady_x264() -> dict[str, str]:
    """The settings that make x264 give the same bits every time: with AVX-512 its macroblock tree reads memory that it
    has not written, at many widths."""
    return {"x264-params": "asm=avx2"} if cv2.checkHardwareSupport(_AVX512) else {}


def quantiser_for(crf: int) -> int:
    """The MPEG quantiser scale (1 to 31) nearest to x264's CRF: twice as coarse for every 6."""
    return min(max(round(2 * 2 ** ((crf - 16) / 6)), 1), 31)


def _quality(name: str, own: set[str], options: EncodeOptions, notices: list[str]) -> tuple[dict[str, str], int | None]:
    """Settings for CRF and preset; and the quantiser for encoders with no CRF of their own."""
    settings = _preset(name, own, options.preset, notices)
    if name == "libx264":
        settings |= steady_x264()
    if name == "libx265":
        settings["x265-params"] = "log-level=error"  # it would write to stderr itself
    if name == "libvpx-vp9":
        settings |= {"row-mt": "1", "cpu-used": "2"}
    if name == "ffv1":
        settings["slicecrc"] = "1"
    if name in _LOSSLESS or _RATE & {key for key, _ in options.options}:
        return settings, None
    if "crf" in own:
        settings["crf"] = str(options.crf)
    elif "cq" in own:
        settings |= {"rc": "vbr", "cq": str(options.crf)}
    elif "qp" in own:
        settings["qp"] = str(options.crf)
    elif name.endswith("_qsv"):
        settings["global_quality"] = str(min(max(options.crf, 1), 51))
    elif name.endswith("_videotoolbox"):
        return settings, min(max(100 - 2 * options.crf, 1), 100)  # its own scale, on which 100 is best
    else:
        quantiser = quantiser_for(options.crf)
        notices.append(f"{name} has no CRF: quantiser {quantiser} is used for CRF {options.crf}")
        return settings, quantiser
    return settings, None


def _preset(name: str, own: set[str], wanted: str, notices: list[str]) -> dict[str, str]:
    """The setting for the speed of an encoder, in its own words."""
    if "preset" not in own:
        if wanted != EncodeOptions.preset:
            notices.append(f"{name} has no presets: --preset {wanted} is not used")
        return {}
    words = {"libsvtav1": _SVT_PRESETS, "nvenc": _NVENC_PRESETS, "qsv": _QSV_PRESETS, "amf": _AMF_PRESETS}
    return {"preset": words.get(name.rpartition("_")[2], {}).get(wanted, wanted)}


def pixel_formats(codec: Codec, wanted: str | None) -> set[str]:
    """The names of the pixel formats that an encoder takes from the computer's memory, those with opacity left out.

    Raises UsageError if `wanted` is not among them.
    """
    formats = codec.video_formats or ()
    names = {f.name for f in formats if f.components and not any(c.is_alpha for c in f.components)}
    if wanted is not None and wanted not in names:
        raise UsageError(f"encoder {codec.name} does not take pixel format {wanted!r}; it takes {_some(names)}")
    return names


def _pix_fmt(wanted: str | None, codec: Codec, info: MediaInfo, width: int, height: int, notices: list[str]) -> str:
    names = pixel_formats(codec, wanted)
    chosen = wanted or _natural_format(codec, names, info, width, height, notices)
    shape = VideoFormat(chosen, 16, 16)
    odd = (width % 2 and shape.chroma_width() == 8) or (height % 2 and shape.chroma_height() == 8)
    if odd and _even_only(codec.name):
        raise UsageError(f"{codec.name} cannot encode {width}x{height} in {chosen}: odd sizes need --codec libx264")
    depth = max(c.bits for c in shape.components)
    if info.color.hdr and depth < 10:
        raise UsageError(
            f"the input is HDR ({info.color.hdr}) and {codec.name} would wash it out in {depth} bit; "
            "use --codec libx265 or libsvtav1"
        )
    if info.kind == "video" and info.bit_depth > depth:
        notices.append(f"{info.bit_depth}-bit input is encoded in {depth} bit ({codec.name}, {chosen})")
    here, there = _sampling(VideoFormat(info.pix_fmt, 16, 16)), _sampling(shape)
    if info.kind == "video" and not wanted and not is_rgb(info.pix_fmt) and len(shape.components) >= 3 and here > there:
        notices.append(f"colours are encoded more coarsely than the input has them ({codec.name}, {chosen})")
    return chosen


def _sampling(shape: VideoFormat) -> str:
    """420, 422 or 444: the least of these that holds the colours of a format; 420 where it has none."""
    if len(shape.components) < 3:
        return "420"
    return {(8, 8): "420", (8, 16): "422"}.get((shape.chroma_width(), shape.chroma_height()), "444")


def _natural_format(codec: Codec, names: set[str], info: MediaInfo, width: int, height: int, notices: list[str]) -> str:
    """The format nearest to the source's own: its chroma sampling and depth, 4:2:0 for sources in RGB."""
    rgb = is_rgb(info.pix_fmt)
    if rgb and codec.name == "ffv1":
        return "gbrp16le" if info.bit_depth > 12 else "gbrp12le" if info.bit_depth > 8 else "bgr0"
    chroma = "420" if rgb else _sampling(VideoFormat(info.pix_fmt, 16, 16))
    odd = (width % 2 and chroma != "444") or (height % 2 and chroma == "420")
    if odd and _even_only(codec.name) and "yuv444p" in names:
        notices.append(f"{width}x{height} is odd: encoded as 4:4:4, which {codec.name} needs for it")
        chroma = "444"
    depths = [12, 10, 8] if info.bit_depth > 10 and info.kind == "video" else [10, 8] if info.bit_depth > 8 else [8, 10]
    if hardware(codec.name) and codec.name.startswith("h264"):
        depths = [8]  # NVENC lists more for it, and refuses them on nearly all cards
    for depth in depths:
        for sampling in dict.fromkeys((chroma, "420", "422", "444")):
            suffix = "" if depth == 8 else f"{depth}le"
            if codec.name == "mjpeg" and f"yuvj{sampling}p" in names:  # it refuses the usual range
                return f"yuvj{sampling}p"
            if f"yuv{sampling}p{suffix}" in names:
                return f"yuv{sampling}p{suffix}"
            if sampling == "420" and depth == 8 and "nv12" in names:
                return "nv12"
            if sampling == "420" and depth == 10 and "p010le" in names:
                return "p010le"
    if not names:
        return "yuv420p"
    raise UsageError(f"encoder {codec.name} takes only {_some(names)}; choose one with --pix-fmt")


def _even_only(name: str) -> bool:
    return name in _EVEN_ONLY or hardware(name)


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "") or "none"


def _mastering_settings(name: str, mastering: Mastering, notices: list[str]) -> dict[str, str]:
    """HDR10 static metadata in the words of each encoder."""
    key = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}.get(name)
    if key is None:
        notices.append(f"{name} cannot carry the HDR mastering metadata: left out")
        return {}
    parts = []
    if mastering.primaries and mastering.luminance:
        red, green, blue, white = mastering.primaries
        if name == "libsvtav1":
            point, unit, form = (lambda p: f"({float(p[0]):.5f},{float(p[1]):.5f})"), 1, "({},{})"
        else:
            point, unit, form = (lambda p: f"({round(p[0] * 50000)},{round(p[1] * 50000)})"), 10000, "({},{})"
        low, high = (v * unit for v in mastering.luminance)
        low, high = (f"{float(low):.4f}", f"{float(high):.4f}") if unit == 1 else (round(low), round(high))
        display = f"G{point(green)}B{point(blue)}R{point(red)}WP{point(white)}L{form.format(high, low)}"
        parts.append({"libx265": "master-display"}.get(name, "mastering-display") + "=" + display)
    if mastering.max_cll is not None:
        light = f"{mastering.max_cll},{mastering.max_fall or 0}"
        parts.append({"libx264": "cll", "libx265": "max-cll"}.get(name, "content-light") + "=" + light)
    if name == "libx265":
        parts.append("hdr10=1:repeat-headers=1")
    return {key: ":".join(parts)} if parts else {}
