"""What a picture file says beside its pixels: how its colours are meant, and how it was taken."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from sdatc_cli.media.info import PictureTags

_ORIENTATION, _EXIF, _GPS = 0x0112, 0x8769, 0x8825
_KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)  # title, maker, camera, software, date, artist, rights
_SIZES = (0xA002, 0xA003)  # in pixels, as the camera made it


def read_tags(image: Image.Image) -> PictureTags:
    """The tags of an open picture; damaged ones are taken for none."""
    profile = _profile(image)
    keeps = profile is not None and _space(image) == b"RGB " and "sRGB" not in ImageCms.getProfileDescription(profile)
    return PictureTags(image.info["icc_profile"] if keeps else None, _exif(image))


def in_rgb(image: Image.Image) -> Image.Image:
    """A picture of inks or greys as RGB: in sRGB by its own profile, where it has one that fits."""
    profile = _profile(image)
    if profile is not None and (image.mode, _space(image)) in (("CMYK", b"CMYK"), ("L", b"GRAY")):
        try:
            converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            return converted or image.convert("RGB")
        except (ImageCms.PyCMSError, ValueError):  # a damaged one
            pass
    return image.convert("RGB")


def turned(image: np.ndarray, tagged: Image.Image) -> np.ndarray:
    """Pixels (height, width, ...) upright as the orientation of an open picture says (EXIF 2.3, 1 to 8)."""
    orientation = tagged.getexif().get(_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    data = image.info.get("icc_profile")
    try:
        return ImageCms.ImageCmsProfile(BytesIO(data)) if data else None
    except (OSError, ImageCms.PyCMSError):
        return None


def _space(image: Image.Image) -> bytes:
    """The colours that a picture's profile is for (ICC.1, 7.2.6)."""
    return image.info["icc_profile"][16:20]


def _exif(image: Image.Image) -> bytes | None:
    kept = Image.Exif()
    try:
        exif = image.getexif()
        kept.update({tag: exif[tag] for tag in _KEPT if tag in exif})
        for directory in (_EXIF, _GPS):
            values = {tag: value for tag, value in exif.get_ifd(directory).items() if tag not in _SIZES}
            if values:
                kept[directory] = values
        return kept.tobytes() if len(kept) else None
    except Exception:  # Pillow's reader and writer fail in many ways on values of wrong types
        return None
