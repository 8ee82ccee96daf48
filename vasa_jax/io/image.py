"""Pictures in and out as uint8 RGB arrays, and contact sheets."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps

from vasa_jax.core.errors import UserError
from vasa_jax.io.atomic import existing_file, replacing
from vasa_jax.io.picture_header import HEAD_BYTES, declared_size, is_heic

Path = str | os.PathLike[str]

# What people have; formats that run programs or fetch files (EPS, WMF) stay out.
FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "JPEG2000",
    "AVIF",
    "HEIF",
    "ICO",
)
MAX_PIXELS = 120_000_000  # that are decoded; of a JPEG a part of what it has
MAX_SIDE = 4096  # the widest picture that ordinary H.264 players take
MIN_SIDE = 16
BACKDROP = (128, 128, 128)  # behind transparent pixels: neither bright nor dark fringes


def read_image(
    path: Path,
    *,
    max_side: int = MAX_SIDE,
    max_pixels: int | None = None,
    formats: Sequence[str] = FORMATS,
) -> np.ndarray:
    """The picture as people see it: uint8 RGB (Y, X, 3).

    Turned upright once, as its EXIF or its container says, colours brought to sRGB, 16 bits scaled
    to 8, transparency laid over neutral grey, the first frame of an animation; larger pictures are
    scaled down to ``max_side`` pixels. Refused before anything is decoded: pictures of more than
    ``max_pixels``, and those of which more than ``MAX_PIXELS`` would have to be decoded. Raises
    UserError when it is missing, no picture of these ``formats`` (Pillow's names), cut off, or too
    large.
    """
    file = existing_file(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EXIF quirks and sizes, which are judged below
            return _read(file, max_side, max_pixels, formats)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        counted = re.search(r"\((\d+) pixels\)", str(error))
        count = f"{int(counted[1]) / 1e6:.0f} million" if counted else "too many"
        raise _too_large(file, f"{count} pixels", max_pixels, max_side) from error
    except Image.UnidentifiedImageError as error:
        raise UserError(f"{file} is not an image that can be read") from error
    except MemoryError as error:
        raise UserError(f"{file} needs too much memory; scale it down first") from error
    except Exception as error:  # Pillow's decoders raise whatever broken bytes make them raise
        raise UserError(f"can't read the image {file}: it is damaged or cut off") from error


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 (Y, X, 3) RGB or (Y, X) grey as PNG, JPEG or WebP, by the name's suffix.

    Raises UserError on an unknown suffix or when the file can't be written.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    options: dict[str, Any]
    if suffix == ".png":
        options = {"compress_level": 6}
    elif suffix in (".jpg", ".jpeg", ".webp"):
        options = {"quality": 92}
    else:
        raise UserError(f"can't write {os.fspath(path)}: name it .png, .jpg or .webp")
    if image.dtype != np.uint8:
        raise TypeError(f"write_image takes uint8, got {image.dtype}")
    with replacing(path) as partial:
        Image.fromarray(np.ascontiguousarray(image)).save(partial, **options)


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str] = (),
    *,
    columns: Sequence[str] = (),
    cell: int | None = None,
    gap: int = 4,
) -> np.ndarray:
    """Rows of pictures in one, uint8 RGB, with a label above each row and each column.

    Pictures are uint8 (Y, X, 3) or (Y, X), of any sizes; each is fitted into a square cell of
    ``cell`` pixels (by default the largest side, at most 256).
    """
    if not rows or not any(len(row) for row in rows):
        raise ValueError("a contact sheet needs at least one picture")
    cell = cell or min(256, max(max(image.shape[:2]) for row in rows for image in row))
    width = max(len(row) for row in rows) * (cell + gap) + gap
    text = max(11, cell // 14)
    font = ImageFont.load_default(text)
    line = text + 2 * gap if labels else 0
    header = text + 2 * gap if columns else 0
    height = header + len(rows) * (cell + gap + line) + gap
    sheet = Image.new("RGB", (width, height), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(columns):
        draw.text((gap + j * (cell + gap), gap), name, (220, 220, 220), font=font)
    y = gap + header
    for i, row in enumerate(rows):
        if labels:
            name = labels[i] if i < len(labels) else ""
            draw.text((gap, y), name, (220, 220, 220), font=font)
            y += line
        for j, array in enumerate(row):
            image = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
            scale = cell / max(image.size)
            if scale != 1.0:
                size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
                image = image.resize(size, Image.Resampling.LANCZOS)
            x0 = gap + j * (cell + gap) + (cell - image.width) // 2
            sheet.paste(image, (x0, y + (cell - image.height) // 2))
        y += cell + gap
    return np.asarray(sheet)


def _read(
    file: os.PathLike[str], max_side: int, max_pixels: int | None, formats: Sequence[str]
) -> np.ndarray:
    with open(file, "rb") as opened:
        head = opened.read(HEAD_BYTES)
    # JPEG alone can be decoded at a part of its size, and says its size in a place of its own.
    limit = min(max_pixels or MAX_PIXELS, MAX_PIXELS)
    _check_pixels(file, declared_size(head), limit, max_side)
    with _open(file, head, formats) as image:
        width, height = image.size
        if min(width, height) < MIN_SIDE:
            raise UserError(f"{file} is only {width}x{height} pixels; give a larger picture")
        if max_pixels is not None:
            _check_pixels(file, image.size, max_pixels, max_side)
        if max(width, height) > max_side:
            image.draft(None, (max_side, max_side))  # JPEG only: decodes at 1/2, 1/4 or 1/8
        if image.size[0] * image.size[1] > MAX_PIXELS:
            raise _too_large(file, f"{width}x{height} pixels", max_pixels, max_side)
        image.load()
        profile = image.info.get("icc_profile")
        if image.format in ("AVIF", "HEIF"):
            # Their container alone says how they are turned; a copy of that in XMP is stale.
            image.info.pop("xmp", None)
        upright = ImageOps.exif_transpose(image) or image
        picture = _to_rgb(upright, profile)
    if max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(picture)


def _check_pixels(
    file: os.PathLike[str], size: tuple[int, int] | None, limit: int, max_side: int
) -> None:
    if size is not None and size[0] * size[1] > limit:
        raise _too_large(file, f"{size[0]}x{size[1]} pixels", limit, max_side)


def _too_large(
    file: os.PathLike[str], what: str, max_pixels: int | None, max_side: int
) -> UserError:
    limit = (max_pixels or MAX_PIXELS) // 1_000_000
    return UserError(f"{file} is too large: {what}, at most {limit} million can be read; "
                     f"scale it down to {max_side} pixels a side first")  # fmt: skip


def _open(file: os.PathLike[str], head: bytes, formats: Sequence[str]) -> Image.Image:
    """The common formats first: knowing all of Pillow's takes a tenth of a second."""
    Image.preinit()
    if is_heic(head):
        _learn_heic(file)
    try:
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])
    except Image.UnidentifiedImageError:
        Image.init()
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])


def _learn_heic(file: os.PathLike[str]) -> None:
    """Makes Pillow know HEIC; the package that decodes it is loaded for such a picture alone."""
    try:
        from pi_heif import register_heif_opener
    except ImportError as error:
        raise UserError(f"{file} is a HEIC picture, which needs pi-heif: pip install pi-heif; "
                        "or save it as JPEG first") from error  # fmt: skip
    register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey(image)
    if image.mode in ("P", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert("RGB" if image.mode == "RGBA" else "L")
    image = _to_srgb(image, profile)
    if alpha is not None:
        backdrop = Image.new("RGB", image.size, BACKDROP)
        backdrop.paste(image, mask=alpha)
        image = backdrop
    return image


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB. A missing, damaged or unfitting profile means: as if it were sRGB."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit or floating grey as 8-bit RGB, by the range its numbers are in."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    peak = values.max(initial=0.0)
    if image.mode.startswith("I;16"):
        top = 65535.0
    elif image.mode == "F" and peak <= 1.0:
        top = 1.0
    else:  # the smallest usual range that holds the numbers
        top = next((t for t in (255.0, 65535.0) if peak <= t), peak)
    grey = np.clip(values * (255.0 / top) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
