"""Picture files that commands write."""

from pathlib import Path

from PIL import Image


def refuse_output(path: Path, overwrite: bool, flag: str = "--output") -> None:
    """Called before the work, so that nobody waits for a picture that cannot be written.

    Raises:
        ValueError: If `path` exists and may not be overwritten, its folder does not exist, or its ending is that of no
            picture.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists; choose another {flag}, or pass --overwrite.")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} does not exist; make it first, or choose another {flag}.")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{flag} {path} has no ending of a picture; choose one such as .png, .jpg or .webp.")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a picture and says so."""
    picture.save(path)
    print(f"Wrote {path}, {picture.width}x{picture.height} pixels")
