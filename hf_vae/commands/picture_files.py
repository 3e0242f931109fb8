"""Image files that commands write."""

from pathlib import Path

from PIL import Image


def refuse_output(path: Path, overwrite: bool, flag: str = "--output") -> None:
    """Checks, before the work starts, that an image can be written to `path`.

    Raises:
        ValueError: If `path` exists and may not be overwritten, its folder does not exist, or its ending is not one of
            an image format.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another {flag}, or pass --overwrite.")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} does not exist; create it, or choose another {flag}.")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{flag} {path} is not named like an image; choose an ending such as .png, .jpg or .webp.")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes an image and prints its path and size."""
    picture.save(path)
    print(f"Wrote {path}, {picture.width}x{picture.height} pixels")
