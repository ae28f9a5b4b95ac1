"""Reads picture files as greyscale arrays, in the formats that Pillow reads safely and fast.

    grey = picture_files.read("scan.png")       # float (h, w), 0 black to 1 white

A picture may be crafted to fill the memory or to take hours. So only the listed formats are read,
the numbers of pixels, bytes and JPEG scans are limited before anything is decoded, and large
pictures are decoded at a smaller size.
"""

from __future__ import annotations

import re
import warnings
from typing import IO, TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from support import files
from support.datasets import ink
from support.datasets.ink import Grey

if TYPE_CHECKING:
    from PIL import Image

# Without EPS, which starts Ghostscript, and without formats in which hardly anybody saves digits.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "PPM")
MOST_BYTES, MOST_PIXELS = 200_000_000, 50_000_000
TOO_LARGE = f"it has more than {MOST_PIXELS // 10**6} million pixels: save it at a smaller size"
# A progressive JPEG is decoded once per scan; about ten scans are usual.
MOST_SCANS, MOST_SCANNED = 64, 1_000_000_000
# The longer side, in pixels, of the pictures that are processed.
LARGEST = 800
# The value of white if values are not bytes: in floats, and in the bit depths of scanners and
# cameras.
WHITES = (1, 255, 1023, 4095, 16383, 65535)

EXPORT = "export it as JPEG or PNG"
RAW, AVIF = "a RAW picture", "an AVIF picture"
# Formats that are not read (or only by newer versions of Pillow): how such files begin, what they
# are, and what to do.
UNREAD = (
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC picture", EXPORT),
    (rb"....ftypavi[fs]", AVIF, EXPORT),
    (rb"....ftypcrx|II\*\0.{4}CR|IIRO|IIRS|IIU\0|FUJIFILM", RAW, EXPORT),
    (rb"....ftyp", "a video", "save one of its frames as PNG"),
    (rb"%PDF", "a PDF document", "export its page as PNG, or take a screenshot"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript document", "export it as PNG"),
    (rb"\s*(\xef\xbb\xbf)?(<\?xml.*)?(<!.*)?<svg", "an SVG drawing", "export it as PNG"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture", EXPORT),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", EXPORT),
    (rb"8BPS", "a Photoshop document", "export it as PNG"),
    (rb"gimp xcf", "a GIMP document", "export it as PNG"),
    (rb"PK\x03\x04", "a zip archive or an office document", "unpack it, or export it as PNG"),
)
# RAW formats whose files begin like TIFF files.
RAW_ENDINGS = (".dng", ".nef", ".arw", ".pef", ".srw")
PICTURE_ENDINGS: tuple[str, ...] = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif"),
    *(".pgm", ".ppm", ".pbm", ".heic", ".heif", ".pdf"),
)


class NotAPicture(ValueError):  # noqa: N818, a stray file is not an error
    """The file is not a picture, and its name does not claim that it is."""


def read(path: str) -> Grey:
    """Reads a picture in greyscale, 0 black to 1 white, upright, with sides of at most 800 pixels.

    Transparent parts become dark if the ink is light, and light otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not a regular file, or may not be read.
        NotAPicture: it is not a picture.
        ValueError: it is a picture that cannot be read; the message says why and what to do.
    """
    from PIL import Image

    with files.open_regular(path) as file, warnings.catch_warnings():
        # Among them Pillow's warning of many pixels: `refuse_large` sets a lower limit.
        warnings.simplefilter("ignore")
        start = file.read(512)
        _refuse_unread_formats(start, path)
        file.seek(0)
        Image.init()
        known = [name for name in FORMATS if name in Image.OPEN]
        try:
            with Image.open(file, formats=known) as picture:
                refuse_large(picture, file)
                return _grey(_small(picture))
        except Image.UnidentifiedImageError:
            _refuse_unidentified(start, path)
        except _Refused:
            raise
        except Image.DecompressionBombError:
            raise _Refused(TOO_LARGE) from None
        except files.DAMAGE as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ValueError(
                f"it is damaged or truncated ({reason:.150}): {EXPORT} again"
            ) from error


class _Refused(ValueError):  # noqa: N818
    """A refusal whose message is ready to be shown."""


def _refuse_unread_formats(start: bytes, path: str) -> None:
    """Refuses known formats that are not read, by their first bytes."""
    from PIL import features

    for pattern, what, way_out in UNREAD:
        if re.match(pattern, start, re.DOTALL):
            if what == AVIF and features.check("avif"):
                return
            raise _Refused(f"it is {what}, which cannot be read: {way_out}")
    if path.lower().endswith(RAW_ENDINGS) and start[:2] in (b"II", b"MM"):
        raise _Refused(f"it is {RAW}, which cannot be read: {EXPORT}")


def _refuse_unidentified(start: bytes, path: str) -> NoReturn:
    """Refuses a file that Pillow does not recognize, and says what it is."""
    if not path.lower().endswith(PICTURE_ENDINGS):
        raise NotAPicture("it is not a picture")
    found = "it is empty" if not start else f"it begins with {start[:8]!r}"
    raise _Refused(f"its format is unknown, whatever its name says ({found}): {EXPORT}")


def refuse_large(picture: Image.Image, file: IO[bytes]) -> None:
    """Refuses a picture that would take too much memory or time to decode.

    Args:
        picture: the picture, opened but not yet decoded.
        file: the file that it is read from; its position is unchanged afterwards.

    Raises:
        ValueError: it is too large; the message says what to do.
    """
    pixels = picture.width * picture.height
    if not pixels:
        raise _Refused(f"it has no pixels: {EXPORT} again")
    if pixels > MOST_PIXELS:
        raise _Refused(TOO_LARGE)
    where = file.tell()
    if file.seek(0, 2) > MOST_BYTES:
        raise _Refused(f"it has more than {MOST_BYTES // 10**6} MB: save it as JPEG or PNG")
    if picture.format in ("JPEG", "MPO"):
        file.seek(0)
        # Within a scan, a byte of 255 is followed only by 0 or by a restart marker, so this finds
        # nothing but the starts of scans.
        scans = file.read().count(b"\xff\xda")
        if scans > MOST_SCANS or scans * pixels > MOST_SCANNED:
            raise _Refused(f"it is a JPEG of {scans} scans, too slow to decode: save it as PNG")
    file.seek(where)


def _small(picture: Image.Image) -> Image.Image:
    """Decodes a picture, upright and no larger than needed, as RGBA, RGB, L, or numbers (I, F)."""
    from PIL import Image, ImageOps

    if picture.mode.startswith(("I", "F")):
        return ImageOps.exif_transpose(picture)
    picture.draft(None, (LARGEST, LARGEST))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode in ("1", "L"):
        picture = picture.convert("L")
    else:
        picture = picture.convert("RGB")
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return ImageOps.exif_transpose(picture)


def _grey(picture: Image.Image) -> Grey:
    """Returns the pixel intensities of a picture, 0 black to 1 white."""
    if picture.mode.startswith(("I", "F")):
        return ink.shrink(_scaled(np.asarray(picture, np.float32)), LARGEST).astype(float)
    values = np.asarray(picture, float) / 255
    if values.ndim == 3 and values.shape[2] == 4:
        values = _on_ground(values)
    if values.ndim == 3:
        return ink.as_grey(values)
    return values


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales numbers of unknown range to [0, 1], by the white of the smallest depth that fits."""
    if not np.isfinite(values).all():
        raise _Refused("it has pixels that are NaN or infinite: save it as PNG")
    least, most = float(values.min()), float(values.max())
    if least < 0:
        return (values - least) / max(most - least, 1e-6)
    return values / next((white for white in WHITES if most <= white), most)


def _on_ground(values: Grey) -> Grey:
    """Lays a picture, float (h, w, 4), whose last channel is opacity, on a background.

    If most of the picture is opaque, it is a page, and the background gets its usual colour.
    Otherwise only the ink is opaque, and the background is white or black, whichever differs more
    from the ink.
    """
    colours, opacity = values[..., :3], values[..., 3:]
    if opacity.mean() > 0.5:
        ground: NDArray | np.float64 = np.median(colours[opacity[..., 0] > 0.5], axis=0)
    else:
        mean = (colours * opacity).sum() / max(3 * opacity.sum(), 1e-6)
        ground = np.float64(mean < 0.5)
    return colours * opacity + ground * (1 - opacity)
