"""Frames to a file that plays in any browser."""

from pathlib import Path

from PIL import Image


LEAST_EDGE = 256
FRAME_MILLISECONDS = 60


def there_and_back(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames forwards and then backwards, so that a loop has no jump and shows neither end twice."""
    return frames + frames[-2:0:-1]


def enlarge(picture: Image.Image) -> Image.Image:
    """The picture with its pixels repeated, at least `LEAST_EDGE` wide and high: players blur what they enlarge."""
    factor = -(-LEAST_EDGE // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def save_loop(frames: list[Image.Image], path: Path) -> None:
    """Writes an endless animation, there and back, as a lossless WebP."""
    first, *others = [enlarge(frame).convert("RGB") for frame in there_and_back(frames)]
    first.save(path, "WEBP", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, loop=0, lossless=True)
