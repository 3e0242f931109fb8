"""What people upload by mistake and on purpose: good pictures of every kind, and broken, enormous and disguised files,
made here from a drawing."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache

from conftest import draw_picture
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo


GOOD, REFUSED, EITHER = "a picture", "one sentence", "a picture or one sentence"
Upload = tuple[str, bytes, str]  # a name, the content, and what has to become of it

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}
MODES = {
    "jpg": ("L", "RGB", "CMYK"),
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "webp": ("L", "LA", "P", "RGB", "RGBA"),
    "gif": ("1", "L", "P", "RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
}


def encoded(picture: Image.Image, ending: str, **options) -> bytes:
    """A picture as a file of the format that belongs to `ending`."""
    buffer = io.BytesIO()
    picture.save(buffer, FORMATS.get(ending, ending), **options)
    return buffer.getvalue()


@cache  # 50 MiB, which take seconds to make
def corpus() -> tuple[Upload, ...]:
    """All of them, in the same order and with the same bytes each time."""
    parts = (_kinds, _sizes, _orientations, _metadata, _animations, _disguises, _bombs, _cut, _flipped)
    return tuple(upload for part in parts for upload in part())


def good_files() -> dict[str, bytes]:
    """A picture in each of the formats, by its ending."""
    return {ending: encoded(draw_picture(1, (64, 48)), ending) for ending in FORMATS}


def _kinds() -> Iterator[Upload]:
    for ending, modes in MODES.items():
        for mode in modes:
            picture = draw_picture(2, (60, 40))
            if mode == "I;16":
                picture = picture.convert("I").point(lambda value: value * 257)
            options = {"transparency": 3} if mode == "P" and ending in ("png", "gif") else {}
            yield f"{mode.replace(';', '')}.{ending}", encoded(picture.convert(mode), ending, **options), GOOD
    yield "progressive.jpg", encoded(draw_picture(3), "jpg", progressive=True), GOOD
    yield "palette-alpha.png", encoded(draw_picture(3).quantize(16), "png", transparency=bytes(range(16))), GOOD
    yield "lossless.webp", encoded(draw_picture(3), "webp", lossless=True), GOOD
    yield "large-16-bit.png", encoded(Image.new("I;16", (4300, 4300), 40_000), "png"), GOOD


def _sizes() -> Iterator[Upload]:
    sizes = ((1, 1), (1, 2), (2, 1), (1, 20_000), (20_000, 1), (3, 7), (2100, 2000))
    for width, height in sizes:
        for ending in FORMATS:
            fits = ending != "webp" or max(width, height) < 2**14
            if fits:
                yield f"{width}x{height}.{ending}", encoded(Image.new("RGB", (width, height), "teal"), ending), GOOD


def _orientations() -> Iterator[Upload]:
    for value in (*range(10), 65_535):
        exif = Image.Exif()
        exif[0x0112] = value
        for ending in ("jpg", "png", "webp"):
            yield f"orientation-{value}.{ending}", encoded(draw_picture(4, (40, 30)), ending, exif=exif), GOOD


def _metadata() -> Iterator[Upload]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    garbage = random.Random(0).randbytes
    for ending in ("jpg", "png", "webp"):
        picture = draw_picture(5)
        yield f"icc.{ending}", encoded(picture, ending, icc_profile=profile), GOOD
        yield f"icc-garbage.{ending}", encoded(picture, ending, icc_profile=garbage(3000)), GOOD
        yield f"exif-garbage.{ending}", encoded(picture, ending, exif=b"Exif\0\0" + garbage(900)), EITHER
        yield f"exif-half.{ending}", encoded(picture, ending, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12"), EITHER
        loop = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"
        yield f"exif-loop.{ending}", encoded(picture, ending, exif=loop), EITHER
        text = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04up!\0\0\0\0\0"
        yield f"orientation-is-text.{ending}", encoded(picture, ending, exif=text), EITHER
    yield "icc-of-megabytes.jpg", encoded(draw_picture(5), "jpg", icc_profile=garbage(5_000_000)), GOOD
    yield "xmp-of-megabytes.webp", encoded(draw_picture(5), "webp", xmp=b"<x>" + b" " * 8_000_000), GOOD
    comments = b"".join(b"\xff\xfe" + struct.pack(">H", 65_535) + b"x" * 65_533 for _ in range(120))
    plain = encoded(draw_picture(5), "jpg")
    yield "comments-of-megabytes.jpg", plain[:2] + comments + plain[2:], GOOD
    for name, chunk in (("text", _chunk(b"tEXt", b"a\0" + b"x" * 8_000_000)), ("text-bomb", _text_bomb())):
        plain = encoded(draw_picture(5), "png")
        yield f"{name}.png", plain[:33] + chunk + plain[33:], EITHER
    info = PngInfo()
    for number in range(20_000):
        info.add_text(f"key{number}", "value")
    yield "20000-texts.png", encoded(draw_picture(5), "png", pnginfo=info), EITHER


def _animations() -> Iterator[Upload]:
    frames = [draw_picture(number, (30, 20)) for number in range(20)]
    for ending in ("gif", "webp", "png"):
        moving = encoded(frames[0], ending, save_all=True, append_images=frames[1:], duration=50)
        yield f"animated.{ending}", moving, GOOD
        yield f"animated-cut.{ending}", moving[: len(moving) // 2], EITHER
    one = encoded(frames[0], "gif")
    start = one.index(b",", 13 + 3 * 2 ** ((one[10] & 7) + 1))  # the first frame, after the palette
    yield "10000-frames.gif", one[:start] + one[start:-1] * 10_000 + b";", GOOD
    two = encoded(frames[0], "webp", save_all=True, append_images=frames[1:2], duration=50)
    many = two[12 : two.index(b"ANMF")] + two[two.index(b"ANMF") : two.rindex(b"ANMF")] * 10_000
    yield "10000-frames.webp", b"RIFF" + struct.pack("<I", len(many) + 4) + b"WEBP" + many, GOOD


def _disguises() -> Iterator[Upload]:
    picture = draw_picture(6)
    files = {
        name: encoded(picture, name) for name in (*FORMATS, "tiff", "ico", "ppm", "tga", "jpeg2000", "avif", "pdf")
    }
    for number, (name, content) in enumerate(files.items()):
        wrong = list(FORMATS)[(number + 1) % len(FORMATS)]
        yield f"{name}-called.{wrong}", content, GOOD if name in FORMATS else REFUSED
    texts = {
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><image href='file:///etc/passwd'/></svg>",
        "html": b"<!doctype html><script>alert(1)</script>",
        "javascript": b"fetch('http://169.254.169.254/')",
        "php": b"<?php system($_GET['c']); ?>",
        "shell": b"#!/bin/sh\nrm -rf /\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "mvg": b"push graphic-context\nfill 'url(https://127.0.0.1/|ls)'\npop graphic-context",
        "json": b'{"image": "x"}',
        "nothing": b"",
        "one-byte": b"\xff",
        "zeros": bytes(100_000),
        "xbm": b"#define a_width 8\n#define a_height 8\nstatic char a_bits[] = { 0x00 };",
    }
    for name, content in texts.items():
        for ending in ("jpg", "png"):
            yield f"{name}-called.{ending}", content, REFUSED
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("../../escape.png", files["png"])
    yield "zip-called.png", archive.getvalue(), REFUSED
    for ending, content in good_files().items():
        yield f"polyglot-zip.{ending}", content + archive.getvalue(), GOOD
        yield f"polyglot-html.{ending}", content + texts["html"], GOOD
        yield f"header-alone.{ending}", content[:16], REFUSED
        yield f"after-html.{ending}", texts["html"] + content, REFUSED
    yield "jpg-then-png.png", files["jpg"] + files["png"], GOOD


def _bombs() -> Iterator[Upload]:
    for width, height in ((12_000, 12_000), (65_500, 65_500), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 0), (0, 9)):
        yield f"announced-{width}x{height}.png", _png_of_zeros(width, height, 0), REFUSED
    yield "144-megapixels.png", _png_of_zeros(12_000, 12_000, 12_000 * (1 + 12_000 * 3)), REFUSED
    yield "just-too-large.png", encoded(Image.new("L", (4500, 4500)), "png"), REFUSED
    yield "as-large-as-allowed.png", encoded(Image.new("RGBA", (5000, 4000)), "png"), GOOD
    large = encoded(Image.new("RGBA", (5000, 4000)), "webp", lossless=True, method=0, quality=0)
    yield "as-large-as-allowed.webp", large, GOOD
    yield "as-large-as-allowed.bmp", encoded(Image.new("1", (5000, 4000)), "bmp"), GOOD
    yield "as-large-as-allowed.gif", encoded(Image.new("L", (5000, 4000)), "gif"), GOOD
    yield "as-large-as-allowed.jpg", encoded(Image.new("CMYK", (10_000, 5000)), "jpg"), GOOD
    for width, outcome in ((5000, GOOD), (5100, REFUSED)):
        large = encoded(Image.new("RGB", (width, 4000)), "jpg", progressive=True)
        yield f"progressive-{width}x4000.jpg", large, outcome
    yield "too-large.jpg", encoded(Image.new("L", (7100, 7100)), "jpg"), REFUSED
    webp = bytearray(encoded(draw_picture(7), "webp"))
    webp[26:30] = struct.pack("<HH", 2**14 - 1, 2**14 - 1)
    yield "announced.webp", bytes(webp), REFUSED
    yield "too-large.tiff", encoded(Image.new("1", (5100, 4000)), "tiff", compression="group4"), REFUSED
    yield "too-large.gif", _gif_of_large_frame(65_000, 65_000), REFUSED
    yield "frame-larger-than-canvas.gif", _gif_of_large_frame(9000, 9000), REFUSED
    bmp = bytearray(encoded(Image.new("RGB", (4, 4)), "bmp"))
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, -(2**31))
    yield "announced.bmp", bytes(bmp), REFUSED


def _cut() -> Iterator[Upload]:
    for ending, content in good_files().items():
        for quarter in range(1, 4):
            yield f"cut-at-{quarter}-quarters.{ending}", content[: quarter * len(content) // 4], EITHER
        yield f"cut-at-the-last-byte.{ending}", content[:-1], EITHER


def _flipped(count: int = 15) -> Iterator[Upload]:
    generator = random.Random(1)
    for ending, content in good_files().items():
        for number in range(count):
            changed = bytearray(content)
            for _ in range(1 + number):
                changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
            yield f"{number + 1}-bits-flipped.{ending}", bytes(changed), EITHER


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_of_zeros(width: int, height: int, num_bytes: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    press = zlib.compressobj(9)
    data = b"".join(press.compress(bytes(min(2**20, num_bytes - at))) for at in range(0, num_bytes, 2**20))
    data = _chunk(b"IDAT", data + press.flush())
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + data + _chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    return _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 1))


def _gif_of_large_frame(width: int, height: int) -> bytes:
    """A frame that is larger than the canvas of 10 pixels that the header announces."""
    content = bytearray(encoded(Image.new("L", (10, 10)), "gif"))
    start = content.index(b",", 13 + 3 * 2 ** ((content[10] & 7) + 1))
    content[start + 5 : start + 9] = struct.pack("<HH", width, height)
    return bytes(content)
