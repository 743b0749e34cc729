"""Still images and folders of numbered frames."""

import re
import struct
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sdatc_cli.errors import InputError, OutputError
from sdatc_cli.media.container import MAX_PIXELS, one_line, show
from sdatc_cli.media.info import RANGE_FULL, ColorInfo, MediaInfo, StreamInfo

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
ALPHA_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".webp"})
_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
_RGB = ColorInfo(range=RANGE_FULL)


def is_image(path: Path) -> bool:
    """Whether the name is that of a still image this module reads and writes."""
    return path.suffix.lower() in SUFFIXES


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
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts], path.name


def read_image(path: Path) -> np.ndarray:
    """An image file as (height, width, 3) RGB, uint16 for sources of over 8 bits, else uint8; turned upright.

    Raises InputError.
    """
    return read_picture(path)[0]


def read_picture(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The RGB of `read_image`, and the opacity as (height, width) of the same type where the file has one.

    Raises InputError.
    """
    try:
        data = path.read_bytes()
        if not data:
            raise InputError(f"{show(path)}: the file is empty")
        deep = _decode_deep(data) if path.suffix.lower() in _DEEP_SUFFIXES else None
        if deep is not None:
            return deep
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(f"{show(path)}: {image.width}x{image.height} is too large (at most 8192x8192 pixels)")
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                whole = np.asarray(upright.convert("RGBA"))
                return np.ascontiguousarray(whole[..., :3]), np.ascontiguousarray(whole[..., 3])
            return np.asarray(upright.convert("RGB")), None
    except Image.DecompressionBombError as error:
        raise InputError(f"{show(path)}: too large (at most 8192x8192 pixels)") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{show(path)}: not an image") from error
    except (OSError, ValueError, SyntaxError, EOFError, cv2.error) as error:
        raise InputError(f"{show(path)}: damaged beyond reading ({one_line(error)})") from error


def _decode_deep(data: bytes) -> tuple[np.ndarray, np.ndarray | None] | None:
    """16-bit PNG and TIFF, which Pillow would reduce to 8 bits; None for any other."""
    if data.startswith(b"\x89PNG") and (len(data) < 26 or data[24] != 16):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        return None
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2), None
    alpha = np.ascontiguousarray(image[..., 3]) if image.shape[2] == 4 else None
    return np.ascontiguousarray(image[..., 2::-1]), alpha


def eight_bits(image: np.ndarray) -> np.ndarray:
    """uint8 of uint8 or of full-range uint16."""
    if image.dtype != np.uint16:
        return image
    return ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def write_image(path: Path, image: np.ndarray, alpha: np.ndarray | None = None, color: ColorInfo = _RGB) -> None:
    """Write (height, width, 3) RGB uint8 or uint16; 16 bits survive in PNG and TIFF, HDR tags in PNG.

    `alpha` (any size, same type) is enlarged to fit and kept in PNG, TIFF and WebP. Raises OutputError.
    """
    suffix = path.suffix.lower()
    if alpha is not None and suffix in ALPHA_SUFFIXES:
        alpha = cv2.resize(alpha, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
        image = np.dstack([image, alpha])
    try:
        if image.dtype == np.uint16 and suffix in _DEEP_SUFFIXES:
            order = [2, 1, 0, 3][: image.shape[2]]
            done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., order]))
            if not done:
                raise OutputError(f"{show(path)}: cannot be encoded")
            body = data.tobytes()
            path.write_bytes(_tagged(body, color) if suffix == ".png" and color.hdr else body)
            return
        settings = {".png": {"compress_level": 3}, ".webp": {"lossless": True}}.get(suffix, {"quality": 95})
        Image.fromarray(eight_bits(image)).save(path, **settings)
    except (OSError, ValueError, cv2.error) as error:
        raise OutputError(f"{show(path)}: cannot be written ({one_line(error)})") from error


def _tagged(png: bytes, color: ColorInfo) -> bytes:
    """A PNG with a cICP chunk behind its IHDR (the first 33 bytes): primaries, transfer, RGB, full range."""
    chunk = b"cICP" + bytes([color.primaries, color.transfer, 0, 1])
    return png[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def probe_images(path: Path) -> MediaInfo:
    """What an image file or a folder of numbered frames holds.

    Raises InputError.
    """
    frames = list_frames(path) if path.is_dir() else (path,)
    first, alpha = read_picture(frames[0])
    height, width = first.shape[:2]
    deep = first.dtype == np.uint16
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
        color=_RGB,
        has_alpha=alpha is not None,
        frames=frames,
    )
