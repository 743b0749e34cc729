"""Which encoder with which settings and pixel format suits a source, an output container and a person's wishes."""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

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
_SVT_PRESETS = {"ultrafast": 12, "superfast": 11, "veryfast": 10, "faster": 9, "fast": 8, "medium": 7, "slow": 5,
                "slower": 4, "veryslow": 2, "placebo": 0}  # fmt: skip


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode the video. `options` are further settings of the encoder by its own names.

    `crf` is x264's scale; encoders without one get the quantiser that comes nearest. `frame_rate` is for stills, which
    have no times of their own.
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
        raise UsageError(
            f"encoder {name!r} is not in this FFmpeg; try libx264, libx265, libsvtav1, libvpx-vp9, ffv1 or prores_ks"
        ) from error
    if codec.type != "video":
        raise UsageError(f"{name!r} does not encode video")
    return codec


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
    context: Any = CodecContext.create(codec, "w")
    known = {option.name for group in (context.supported_options.private, context.supported_options.generic)
             for option in group}  # fmt: skip
    private = {option.name for option in context.supported_options.private}
    settings, quantiser = _quality(codec.name, private, options, notices)
    if codec.name == "prores_ks" and "profile" not in settings:
        settings |= {"profile": "4" if "444" in pix_fmt else "3", "vendor": "apl0"}
    if info.mastering is not None and info.color.hdr == "PQ":
        _merge(settings, _mastering_settings(codec.name, info.mastering, notices))
    for key, value in options.options:
        if key not in known:
            raise UsageError(f"encoder {codec.name} has no option {key!r}")
        _merge(settings, {key: value})
    return EncoderPlan(codec.name, pix_fmt, settings, quantiser, notices)


def _merge(settings: dict[str, str], more: dict[str, str]) -> None:
    """Add settings; lists of an encoder's own parameters are joined."""
    for key, value in more.items():
        settings[key] = f"{settings[key]}:{value}" if key.endswith("-params") and key in settings else value


def quantiser_for(crf: int) -> int:
    """The MPEG quantiser scale (1 to 31) nearest to x264's CRF: twice as coarse for every 6."""
    return min(max(round(2 * 2 ** ((crf - 16) / 6)), 1), 31)


def _quality(
    name: str, private: set[str], options: EncodeOptions, notices: list[str]
) -> tuple[dict[str, str], int | None]:
    """Settings for CRF and preset; and the quantiser for encoders with no CRF of their own."""
    settings: dict[str, str] = {}
    if "preset" in private:
        settings["preset"] = options.preset
        if name == "libsvtav1":
            settings["preset"] = str(_SVT_PRESETS.get(options.preset, options.preset))
    if name == "libx265":
        settings["x265-params"] = "log-level=error"  # it would write to stderr itself
    if name == "libvpx-vp9":
        settings |= {"row-mt": "1", "cpu-used": "2"}
    if "crf" in private:
        settings["crf"] = str(options.crf)
    elif "cq" in private:
        settings |= {"rc": "vbr", "cq": str(options.crf)}
    elif name in ("ffv1", "prores_ks", "prores", "prores_aw", "huffyuv", "ffvhuff", "utvideo", "png"):
        if name == "ffv1":
            settings["slicecrc"] = "1"
    elif "qp" in private:
        settings["qp"] = str(options.crf)
    else:
        quantiser = quantiser_for(options.crf)
        notices.append(f"{name} has no CRF: quantiser {quantiser} is used for CRF {options.crf}")
        return settings, quantiser
    return settings, None


def _pix_fmt(wanted: str | None, codec: Codec, info: MediaInfo, width: int, height: int, notices: list[str]) -> str:
    formats = codec.video_formats
    names = {f.name for f in formats} if formats else set()
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"encoder {codec.name} does not take pixel format {wanted!r}; it takes {_some(names)}")
        chosen = wanted
    else:
        chosen = _natural_format(codec, names, info, width, height, notices)
    shape = VideoFormat(chosen, 16, 16)
    odd = (width % 2 and shape.chroma_width() == 8) or (height % 2 and shape.chroma_height() == 8)
    if codec.name in _EVEN_ONLY and odd:
        raise UsageError(f"{codec.name} cannot encode {width}x{height} in {chosen}: odd sizes need --codec libx264")
    depth = max(c.bits for c in shape.components)
    if info.color.hdr and depth < 10:
        raise UsageError(
            f"the input is HDR ({info.color.hdr}) and {codec.name} would wash it out in {depth} bit; "
            "use --codec libx265 or libsvtav1"
        )
    if info.kind == "video" and info.bit_depth > depth:
        notices.append(f"{info.bit_depth}-bit input is encoded in {depth} bit ({codec.name}, {chosen})")
    return chosen


def _natural_format(codec: Codec, names: set[str], info: MediaInfo, width: int, height: int, notices: list[str]) -> str:
    """The format nearest to the source's own: its chroma sampling and depth, 4:2:0 for sources in RGB."""
    rgb = is_rgb(info.pix_fmt)
    if rgb and codec.name == "ffv1":
        return "gbrp16le" if info.bit_depth > 12 else "gbrp12le" if info.bit_depth > 8 else "bgr0"
    shape = VideoFormat(info.pix_fmt, 16, 16)
    chroma = "420"
    if not rgb and len(shape.components) >= 3:
        sampling = (shape.chroma_width(), shape.chroma_height())
        chroma = {(8, 8): "420", (8, 16): "422"}.get(sampling, "444")
    odd = (width % 2 and chroma != "444") or (height % 2 and chroma == "420")
    if odd and codec.name in _EVEN_ONLY and "yuv444p" in names:
        notices.append(f"{width}x{height} is odd: encoded as 4:4:4, which {codec.name} needs for it")
        chroma = "444"
    depths = [12, 10, 8] if info.bit_depth > 10 and info.kind == "video" else [10, 8] if info.bit_depth > 8 else [8, 10]
    for depth in depths:
        for sampling in dict.fromkeys((chroma, "420", "422", "444")):
            suffix = "" if depth == 8 else f"{depth}le"
            if f"yuv{sampling}p{suffix}" in names:
                return f"yuv{sampling}p{suffix}"
            if sampling == "420" and depth == 8 and "nv12" in names:
                return "nv12"
            if sampling == "420" and depth == 10 and "p010le" in names:
                return "p010le"
    if not names:
        return "yuv420p"
    raise UsageError(f"encoder {codec.name} takes only {_some(names)}; choose one with --pix-fmt")


def _some(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "none"


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
