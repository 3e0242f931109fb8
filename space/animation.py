"""Writes frames as an animation that plays in any browser."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image


LEAST_EDGE = 256
FORMATS = ("webp", "gif", "mp4")


def there_and_back(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames forwards, then backwards. The loop has no jump, and each end appears once."""
    return frames + frames[-2:0:-1]


def enlarge(picture: Image.Image) -> Image.Image:
    """Repeats pixels until the image is at least `LEAST_EDGE` wide and high, since players blur what they enlarge."""
    factor = -(-LEAST_EDGE // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def film_strip(frames: list[Image.Image]) -> Image.Image:
    """The frames in a row, in RGB. All have the size of the first."""
    width, height = frames[0].size
    strip = Image.new("RGB", (width * len(frames), height))
    for number, frame in enumerate(frames):
        strip.paste(frame, (width * number, 0))
    return strip


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """The images in a row, in RGB. Smaller images are enlarged to the height of the tallest by repeating pixels."""
    height = max(picture.height for picture in pictures)
    scaled = [
        picture.convert("RGB").resize((picture.width * height // picture.height, height), Image.Resampling.NEAREST)
        for picture in pictures
    ]
    row = Image.new("RGB", (sum(picture.width for picture in scaled), height))
    left = 0
    for picture in scaled:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def save_loop(frames: list[Image.Image], path: Path, frames_per_second: int = 16) -> None:
    """Writes an animation of the frames forwards and backwards. The suffix of `path` selects the format: an endless
    lossless WebP, an endless GIF, or an H.264 MP4.

    Raises:
        ValueError: If the suffix is not in `FORMATS`.
    """
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name!r} is not a supported animation format; choose one of {', '.join(FORMATS)}.")
    loop = [enlarge(frame).convert("RGB") for frame in there_and_back(frames)]
    if kind == "mp4":
        _save_mp4(loop, path, frames_per_second)
        return
    options = {"save_all": True, "duration": round(1000 / frames_per_second), "loop": 0}
    if kind == "gif":
        # Pillow's default palette takes seconds
        loop = [frame.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for frame in loop]
    else:
        options |= {"lossless": True, "method": 0}
    loop[0].save(path, append_images=loop[1:], **options)


def _save_mp4(frames: list[Image.Image], path: Path, frames_per_second: int) -> None:
    import av  # imported here so that the page loads sooner

    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second), options={"crf": "12"})
        stream.width, stream.height = (edge - edge % 2 for edge in frames[0].size)  # H.264 needs even sizes
        stream.pix_fmt = "yuv420p"  # the only pixel format that every browser plays
        for frame in frames:
            values = np.asarray(frame.crop((0, 0, stream.width, stream.height)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb24")))
        container.mux(stream.encode())
