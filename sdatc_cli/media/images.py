"""Still images and folders of numbered frames."""

import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from sdatc_cli.errors import InputError, OutputError
from sdatc_cli.media.container import MAX_PIXELS, one_line, show
from sdatc_cli.media.info import RANGE_FULL, UNTAGGED, ColorInfo, MediaInfo, PictureTags, StreamInfo
from sdatc_cli.media.picture_tags import in_rgb, read_tags, turned

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
ALPHA_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".webp"})
_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
_PLAIN_SUFFIXES = frozenset({".ppm", ".pgm"})  # may be deep, too, and are read, but written with 8 bits
_TAGGED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
_RGB = ColorInfo(range=RANGE_FULL)
_LONG = frozenset({"I", "F"})  # Pillow's modes whose values have no agreed white
_HEAD = 1 << 20  # bytes of a PNG in which chunks are looked for
_PNG = b"\x89PNG\r\n\x1a\n"
_PHOTOMETRIC, _EXTRA = 262, 338  # tags of TIFF: what its values mean, and those of channels beyond the colours


@dataclass(frozen=True)
class Picture:
    """`image` (height, width, 3) RGB, uint16 for sources of over 8 bits, else uint8; `alpha` (height, width) of the
    same type where the file has one; both upright. `others`: how many more pictures the file holds."""

    image: np.ndarray
    alpha: np.ndarray | None = None
    color: ColorInfo = _RGB
    tags: PictureTags = UNTAGGED
    others: int = 0


def is_image(path: Path) -> bool:
    """Whether the name is that of a still image this module reads and writes."""
    return path.suffix.lower() in SUFFIXES


def is_still(path: Path) -> bool:
    """Whether a file is to be read as a picture: by its name, unless it is an animated PNG, which FFmpeg reads."""
    if not (is_image(path) and path.is_file()):
        return is_image(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return True
    return not (head.startswith(_PNG) and b"acTL" in head.partition(b"IDAT")[0])


def holds_tags(suffix: str, bit_depth: int) -> bool:
    """Whether `write_image` keeps colour profile and EXIF data in a file of this ending; `suffix` in lower case."""
    return suffix in _TAGGED_SUFFIXES and (bit_depth == 8 or suffix not in (".tif", ".tiff"))


def list_frames(folder: Path) -> tuple[Path, ...]:
    """The images of a folder in the order of the numbers in their names.

    Raises InputError if there are none.
    """
    try:
        found = [path for path in folder.iterdir() if is_image(path) and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{show(folder)}: cannot be read ({one_line(error)})") from error
    if not found:
        raise InputError(f"{show(folder)}: a folder without frames (numbered PNG, JPEG, TIFF, WebP or BMP files)")
    return tuple(sorted(found, key=_natural_key))


def _natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"([0-9]+)", path.stem)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], path.name


def read_image(path: Path) -> np.ndarray:
    """The `image` of `read_picture`. Raises InputError."""
    return read_picture(path).image


def read_picture(path: Path) -> Picture:
    """The first picture of an image file. Raises InputError."""
    deep = None
    try:
        data = path.read_bytes()
        if not data:
            raise InputError(f"{show(path)}: the file is empty")
        deep = _decode_deep(data) if path.suffix.lower() in _DEEP_SUFFIXES | _PLAIN_SUFFIXES else None
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{show(path)}: {image.width}x{image.height} is too large (at most 8192x8192 pixels)")
            if deep is None and image.mode in _LONG:
                raise InputError(f"{show(path)}: has pixels of 32 bits; save it with 8 or 16")
            pixels, alpha = deep or _decode(image)
            if deep is not None:
                pixels, alpha = turned(pixels, image), None if alpha is None else turned(alpha, image)
            return Picture(pixels, alpha, _color(data), read_tags(image), _others(image))
    except Image.DecompressionBombError as error:
        raise InputError(f"{show(path)}: too large (at most 8192x8192 pixels)") from error
    except UnidentifiedImageError as error:
        if deep is not None:  # a kind of TIFF that OpenCV alone knows
            return Picture(*deep)
        raise InputError(f"{show(path)}: not an image") from error
    except (OSError, ValueError, SyntaxError, EOFError, cv2.error) as error:
        raise InputError(f"{show(path)}: damaged beyond reading ({one_line(error)})") from error


def _decode(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and opacity of an open picture in 8 bits."""
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        whole = np.asarray(upright.convert("RGBA"))
        return np.ascontiguousarray(whole[..., :3]), np.ascontiguousarray(whole[..., 3])
    return np.asarray(in_rgb(upright)), None


def _others(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1) - 1
    except Exception:  # what lies behind the first picture is damaged, in one of many ways
        return 0


def _color(data: bytes) -> ColorInfo:
    """High dynamic range as a PNG's cICP chunk tells it; else what every picture is taken for."""
    at = data.find(b"cICP", 0, _HEAD) if data.startswith(_PNG) else -1
    tagged = ColorInfo(*data[at + 4 : at + 6], range=RANGE_FULL) if 0 < at < len(data) - 6 else _RGB
    return tagged if tagged.hdr else _RGB


def _decode_deep(data: bytes) -> tuple[np.ndarray, np.ndarray | None] | None:
    """16-bit PNG, TIFF, PPM and PGM, which Pillow would reduce to 8 bits or misread; None for any other."""
    if data.startswith(b"\x89PNG") and (len(data) < 26 or data[24] != 16):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        return None
    if data[:2] in (b"P5", b"P6"):  # PGM and PPM name their white, the fourth word that is no comment
        white = int(re.sub(rb"#[^\r\n]*", b" ", data[:_HEAD]).split(maxsplit=4)[3])
        image = np.rint(image.astype(np.float32).clip(max=white) * (65535 / white)).astype(np.uint16)
    tags = _tiff_tags(data)
    if image.ndim == 2:
        image = 65535 - image if tags.get(_PHOTOMETRIC) == 0 else image  # white is zero
        return np.repeat(image[..., None], 3, axis=2), _grey_opacity(image, data)
    # OpenCV and others write opacity without saying so; 0 says that the channel is anything else.
    opacity = image.shape[2] == 4 and tags.get(_EXTRA, (1,))[0] != 0
    return np.ascontiguousarray(image[..., 2::-1]), np.ascontiguousarray(image[..., 3]) if opacity else None


def _tiff_tags(data: bytes) -> dict[int, Any]:
    """The tags of a TIFF's first picture, also of kinds that Pillow does not open; none of another or damaged file."""
    if data[:2] not in (b"II", b"MM"):
        return {}
    file = BytesIO(data)
    try:
        head = file.read(8)
        head += file.read(8) if 43 in (head[2], head[3]) else b""  # BigTIFF
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        return {tag: tags[tag] for tag in (_PHOTOMETRIC, _EXTRA) if tags.get(tag) not in (None, ())}
    except Exception:  # Pillow's reader fails in many ways on damaged tags
        return {}


def _grey_opacity(grey: np.ndarray, data: bytes) -> np.ndarray | None:
    """Opacity of a grey PNG with a tRNS chunk, the value that is clear, which OpenCV minds only in RGB."""
    at = data.find(b"tRNS", 0, _HEAD) if data.startswith(_PNG) else -1
    if not 0 < at <= len(data) - 6 or b"IDAT" in data[:at]:
        return None
    return np.where(grey == int.from_bytes(data[at + 4 : at + 6]), 0, 65535).astype(np.uint16)


def eight_bits(image: np.ndarray) -> np.ndarray:
    """uint8 of uint8 or of full-range uint16."""
    if image.dtype != np.uint16:
        return image
    return ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def in_depth(image: np.ndarray, deep: bool) -> np.ndarray:
    """uint8 or full-range uint16 as uint16 (`deep`) or uint8."""
    return eight_bits(image) if not deep else image if image.dtype == np.uint16 else image.astype(np.uint16) * 257


def write_image(
    path: Path,
    image: np.ndarray,
    alpha: np.ndarray | None = None,
    color: ColorInfo = _RGB,
    tags: PictureTags = UNTAGGED,
    out: Path | None = None,
) -> None:
    """Write (height, width, 3) RGB uint8 or uint16; 16 bits survive in PNG and TIFF, HDR tags in PNG.

    `alpha` (any size, same type) is enlarged to fit and kept in PNG, TIFF and WebP; `tags` where `holds_tags` says so.
    Raises OutputError, which names `out` where `path` is only a temporary place.
    """
    suffix, out = path.suffix.lower(), out or path
    if alpha is not None and suffix in ALPHA_SUFFIXES:
        alpha = cv2.resize(alpha, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
        image = np.dstack([image, alpha])
    try:
        if image.dtype == np.uint16 and suffix in _DEEP_SUFFIXES:
            order = [2, 1, 0, 3][: image.shape[2]]
            done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., order]))
            if not done:
                raise OutputError(f"{show(out)}: cannot be encoded")
            body = data.tobytes()
        else:
            buffer = BytesIO()
            settings = _settings(suffix, tags)
            Image.fromarray(eight_bits(image)).save(buffer, Image.registered_extensions()[suffix], **settings)
            body = buffer.getvalue()
        path.write_bytes(_tagged(body, color, tags) if suffix == ".png" else body)
    except (OSError, ValueError, cv2.error) as error:
        raise OutputError(f"{show(out)}: cannot be written ({one_line(error)})") from error


def _settings(suffix: str, tags: PictureTags) -> dict[str, Any]:
    """What Pillow's writer of a kind of file is told; `_tagged` gives a PNG its tags, of 8 bits as of 16."""
    if suffix == ".png":
        return {"compress_level": 3}
    settings: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"quality": 95}
    if suffix in _TAGGED_SUFFIXES:
        told = {"icc_profile": tags.profile, "exif": tags.exif}
        settings |= {name: data for name, data in told.items() if data}
    return settings


def _tagged(png: bytes, color: ColorInfo, tags: PictureTags) -> bytes:
    """A PNG with chunks for its tags behind its IHDR (the first 33 bytes)."""
    chunks = b""
    if color.hdr:  # RGB, full range
        chunks += _chunk(b"cICP", bytes([color.primaries, color.transfer, 0, 1]))
    if tags.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(tags.profile))
    if tags.exif:
        chunks += _chunk(b"eXIf", tags.exif.removeprefix(b"Exif\0\0"))
    return png[:33] + chunks + png[33:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def probe_images(path: Path) -> MediaInfo:
    """What an image file or a folder of numbered frames holds.

    Raises InputError.
    """
    frames = list_frames(path) if path.is_dir() else (path,)
    first = read_picture(frames[0])
    height, width = first.image.shape[:2]
    deep = first.image.dtype == np.uint16
    codec = frames[0].suffix.lower().lstrip(".")
    return MediaInfo(
        path=path,
        kind="frames" if path.is_dir() else "image",
        width=width,
        height=height,
        frame_count=len(frames),
        pix_fmt="rgb48le" if deep else "rgb24",
        bit_depth=16 if deep else 8,
        streams=(StreamInfo(0, "video", codec),),
        container="image2",
        codec=codec,
        color=first.color,
        has_alpha=first.alpha is not None,
        tags=first.tags,
        frames=frames,
        notices=_notices(frames[0], first),
    )


def _notices(path: Path, picture: Picture) -> tuple[str, ...]:
    """What a person should know of an input's first picture."""
    notices = []
    if picture.color.hdr:
        notices.append(f"high dynamic range ({picture.color.hdr}): kept, with its tags")
    if picture.others:
        more = f"{picture.others} more pictures" if picture.others > 1 else "another picture"
        hint = "; restore a GIF, an animated PNG or a video for all of them" if path.suffix.lower() == ".webp" else ""
        notices.append(f"{show(path)}: holds {more} (of an animation, pages, a preview), left out{hint}")
    return tuple(notices)
