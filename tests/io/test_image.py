from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.io.heic import TURNS, heic
from vasa_jax.core.errors import UserError
from vasa_jax.io.image import BACKDROP, contact_sheet, read_image, write_image

# Left half red, right half blue; the top quarter green: every turn shows.
PICTURE = np.zeros((40, 60, 3), np.uint8)
PICTURE[:, :30] = (200, 30, 30)
PICTURE[:, 30:] = (30, 30, 200)
PICTURE[:10] = (30, 180, 30)


def near(a: np.ndarray, b: np.ndarray, tolerance: float = 6.0) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < tolerance


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_common_formats_read_as_the_same_picture(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PICTURE).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == np.uint8 and near(image, PICTURE)


# EXIF orientation -> how a picture has to be stored so that it says upright what PICTURE is.
STORED = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
}  # fmt: skip
LARGER = PICTURE.repeat(2, 0).repeat(2, 1)  # sides that codecs of video take


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif"])
def test_a_turned_picture_is_put_upright_once(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    turned = Image.fromarray(np.ascontiguousarray(STORED[orientation](LARGER)))
    options = {"quality": 95} if suffix in ("jpg", "webp", "avif") else {}
    turned.save(tmp_path / f"a.{suffix}", exif=_exif(orientation), **options)
    assert near(read_image(tmp_path / f"a.{suffix}"), LARGER)


@pytest.mark.parametrize("orientation", STORED)
def test_a_heic_is_put_upright_once_by_its_container(tmp_path: Path, orientation: int) -> None:
    turned = np.ascontiguousarray(STORED[orientation](LARGER))
    turn, mirror = TURNS[orientation]
    # Phones say it twice; and their pictures often come with another suffix.
    for name, exif in (("a.heic", b""), ("b.jpg", _exif(orientation))):
        (tmp_path / name).write_bytes(heic(turned, turn=turn, mirror=mirror, exif=exif))
        assert near(read_image(tmp_path / name), LARGER), name


def test_exif_alone_turns_no_heic_as_in_every_viewer(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(heic(LARGER, exif=_exif(6)))
    assert near(read_image(tmp_path / "a.heic"), LARGER)


def test_without_its_decoder_a_heic_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.heic").write_bytes(heic(LARGER))
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(UserError, match="pip install pi-heif"):
        read_image(tmp_path / "a.heic")


def test_a_cut_heic_is_damaged_and_another_codec_is_no_image(tmp_path: Path) -> None:
    whole = heic(LARGER)
    (tmp_path / "cut.heic").write_bytes(whole[:-40])
    (tmp_path / "odd.heic").write_bytes(whole.replace(b"hvc1", b"xyz1"))
    for name in ("cut.heic", "odd.heic"):
        with pytest.raises(UserError, match=name):
            read_image(tmp_path / name)


def test_transparency_lies_over_neutral_grey(tmp_path: Path) -> None:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[20:] = 0
    Image.fromarray(np.concatenate([PICTURE, alpha], 2)).save(tmp_path / "rgba.png")
    Image.fromarray(np.concatenate([PICTURE[..., :1], alpha], 2)).save(tmp_path / "la.png")
    Image.fromarray(PICTURE).quantize(8).save(tmp_path / "p.png", transparency=0)
    for name in ("rgba.png", "la.png"):
        image = read_image(tmp_path / name)
        assert (image[20:] == BACKDROP).all() and not (image[:20] == BACKDROP).all()
    assert (read_image(tmp_path / "p.png") == BACKDROP).all(-1).any()


def test_grey_binary_and_deep_pictures_become_rgb(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 60).round().astype(np.uint8)[None].repeat(40, 0)
    expected = ramp[..., None].repeat(3, -1)
    Image.fromarray(ramp).save(tmp_path / "l.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "i16.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "i16.tiff")
    Image.fromarray(ramp.astype(np.int32) * 257).save(tmp_path / "i32.tiff")
    Image.fromarray(ramp.astype(np.float32) / 255).save(tmp_path / "f.tiff")
    for name in ("l.png", "i16.png", "i16.tiff", "i32.tiff", "f.tiff"):
        assert near(read_image(tmp_path / name), expected, 1.0), name
    Image.fromarray(ramp > 127).save(tmp_path / "one.png")
    assert near(read_image(tmp_path / "one.png"), np.where(expected > 127, 255, 0), 1.0)


def test_16_bit_colour_png_is_scaled(tmp_path: Path) -> None:
    rows = (PICTURE.astype(">u2") * 257).reshape(40, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    assert near(read_image(tmp_path / "a.png"), PICTURE, 1.0)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert near(read_image(tmp_path / "a.jpg"), PICTURE)


def test_a_damaged_colour_profile_is_passed_over(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "bad.png", icc_profile=b"no profile")
    assert near(read_image(tmp_path / "bad.png"), PICTURE, 1.0)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(PICTURE).save(tmp_path / "good.png", icc_profile=srgb)
    assert near(read_image(tmp_path / "good.png"), PICTURE, 2.0)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert near(read_image(tmp_path / f"a.{suffix}"), PICTURE)


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    Image.new("RGB", (5000, 1000), (10, 20, 30)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (819, 4096, 3)
    assert read_image(tmp_path / "a.jpg", max_side=1000).shape == (200, 1000, 3)


def test_what_is_no_picture_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture at all\n" * 50)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "cut.jpg")
    for name in ("cut.jpg",):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    Image.effect_noise((300, 300), 90).save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "head.webp").write_bytes(b"RIFF\x10\0\0\0WEBPVP8 ")
    Image.new("L", (3, 3)).save(tmp_path / "tiny.png")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(UserError) as caught:
            read_image(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(UserError):
            read_image(path)


def _png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def _saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(LARGER).save(file, kind, **options)
    return file.getvalue()


def _claiming(data: bytes, old: bytes, new: bytes) -> bytes:
    """A picture whose first bytes claim another size."""
    assert old in data
    return data.replace(old, new, 1)


def _bomb(kind: str) -> bytes:
    """A small file whose picture would have hundreds of millions of pixels."""
    if kind.startswith("png"):
        return _png(int(kind[3:]))
    if kind == "webp":  # lossy, its canvas as large as the format allows
        data = _saved("WEBP")
        return _claiming(data, struct.pack("<HH", 120, 80), struct.pack("<HH", 16383, 16383))
    if kind == "webp lossless":
        data = _saved("WEBP", lossless=True)
        return data[:21] + struct.pack("<I", 16382 | 16382 << 14) + data[25:]
    if kind == "webp extended":
        data = _saved("WEBP", exif=_exif(1))
        return data[:24] + (16382).to_bytes(3, "little") * 2 + data[30:]
    if kind == "tiff":
        data = _saved("TIFF")
        for tag in (256, 257):  # width and height, one number of 16 or 32 bits in its last 4 bytes
            at = re.search(struct.pack("<H", tag) + rb"[\x03\x04]\0\x01\0\0\0", data).end()
            data = data[:at] + struct.pack("<I", 30_000) + data[at + 4 :]
        return data
    if kind == "gif frame":  # larger than the screen that it belongs to
        data = _saved("GIF")
        at = data.index(b"\x2c\0\0\0\0")
        return data[: at + 5] + struct.pack("<HH", 30_000, 30_000) + data[at + 9 :]
    if kind == "jpeg":
        return _claiming(
            _saved("JPEG"), struct.pack(">HH", 80, 120), struct.pack(">HH", 65500, 65500)
        )
    if kind == "heic":
        return heic(LARGER, extent=(30_000, 30_000))
    size, claimed = struct.pack(">II", 120, 80), struct.pack(">II", 30_000, 30_000)
    return _claiming(_saved("AVIF"), size, claimed)


BOMBS = ("png12000", "png30000", "png40000", "webp", "webp lossless", "webp extended", "tiff",
         "gif frame", "jpeg", "heic", "avif")  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_an_enormous_picture_is_too_large_before_it_is_unpacked(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bomb").write_bytes(_bomb(kind))
    with pytest.raises(UserError, match="too large.*million.*scale it down"):
        read_image(tmp_path / "bomb")


def test_a_limit_of_pixels_counts_what_the_file_has(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1000), (10, 20, 30)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", max_pixels=3_000_000).shape == (1000, 3000, 3)
    with pytest.raises(UserError, match="too large: 3000x1000 pixels, at most 2 million"):
        read_image(tmp_path / "a.jpg", max_pixels=2_000_000)


def test_written_pictures_come_back_and_failures_leave_nothing(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.png", PICTURE)
    assert (read_image(tmp_path / "new" / "a.png") == PICTURE).all()
    with pytest.raises(UserError, match="name it"):
        write_image(tmp_path / "a.xyz", PICTURE)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        write_image(tmp_path / "file" / "a.png", PICTURE)
    with pytest.raises(TypeError):
        write_image(tmp_path / "b.png", PICTURE.astype(np.float32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "new"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_contact_sheet_shows_every_picture() -> None:
    rows = [[PICTURE, PICTURE], [PICTURE[..., 0]]]
    sheet = contact_sheet(rows, ["one", "two"], columns=["a", "b"])
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    red = (np.abs(sheet.astype(int) - (200, 30, 30)).sum(-1) < 9).sum()
    assert red == 2 * 30 * 30
