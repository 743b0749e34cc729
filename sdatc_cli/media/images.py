"""Still images and folders of numbered frames."""

import re
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sdatc_cli.errors import InputError, OutputError
from sdatc_cli.media.container import MAX_PIXELS, one_line, show
from sdatc_cli.media.info import RANGE_FULL, ColorInfo, MediaInfo, StreamInfo

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
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
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError as error:
        raise InputError(f"{show(path)}: too large (at most 8192x8192 pixels)") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{show(path)}: not an image") from error
    except (OSError, ValueError, SyntaxError, EOFError, cv2.error) as error:
        raise InputError(f"{show(path)}: damaged beyond reading ({one_line(error)})") from error


def _decode_deep(data: bytes) -> np.ndarray | None:
    """16-bit PNG and TIFF, which Pillow would reduce to 8 bits; None for any other."""
    if data.startswith(b"\x89PNG") and (len(data) < 26 or data[24] != 16):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16:
        return None
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., 2::-1])


def write_image(path: Path, image: np.ndarray) -> None:
    """Write (height, width, 3) RGB uint8 or uint16; 16 bits survive in PNG and TIFF.

    Raises OutputError.
    """
    suffix = path.suffix.lower()
    try:
        if image.dtype == np.uint16 and suffix in _DEEP_SUFFIXES:
            done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
            if not done:
                raise OutputError(f"{show(path)}: cannot be encoded")
            path.write_bytes(data.tobytes())
            return
        if image.dtype == np.uint16:
            image = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        settings = {".png": {"compress_level": 3}, ".webp": {"lossless": True}}.get(suffix, {"quality": 95})
        Image.fromarray(image).save(path, **settings)
    except (OSError, ValueError, cv2.error) as error:
        raise OutputError(f"{show(path)}: cannot be written ({one_line(error)})") from error


def _has_alpha(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.has_transparency_data
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def probe_images(path: Path) -> MediaInfo:
    """What an image file or a folder of numbered frames holds.

    Raises InputError.
    """
    frames = list_frames(path) if path.is_dir() else (path,)
    first = read_image(frames[0])
    height, width = first.shape[:2]
    alpha = _has_alpha(frames[0])
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
        has_alpha=alpha,
        frames=frames,
        notices=("transparency is not kept: the frames are restored over their own colours",) if alpha else (),
    )
