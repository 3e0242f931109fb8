"""Pictures to tensors and back, the same for training and for the Space, and the augmentation of whole batches."""

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps


MODES = {1: "L", 3: "RGB"}
GRID_COLUMNS = 8


def square_picture(
    picture: Image.Image, size: int, channels: int = 3, crop_box: tuple[int, int, int, int] | None = None
) -> Image.Image:
    """Turns any picture into a square one of `size` pixels, in RGB (`channels=3`) or greyscale (`channels=1`).

    EXIF rotation is applied and transparency is laid on white; then `crop_box` (left, top, right, bottom, in pixels)
    is cut out if given, the largest centred square is taken, and it is resized with Lanczos.

    Raises:
        ValueError: If `channels` is neither 1 nor 3, or `crop_box` does not lie inside the picture.
    """
    mode = picture_mode(channels)
    picture = upright_picture(picture)
    if crop_box is not None:
        left, top, right, bottom = crop_box
        if not (0 <= left < right <= picture.width and 0 <= top < bottom <= picture.height):
            raise ValueError(
                f"crop_box={tuple(crop_box)} does not lie inside a picture of {picture.width}x{picture.height}."
            )
        picture = picture.crop((left, top, right, bottom))
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return picture.convert(mode)


def picture_mode(channels: int) -> str:
    """Pillow's name for pictures of 1 (greyscale) or 3 (colour) channels.

    Raises:
        ValueError: If it is any other number.
    """
    if channels not in MODES:
        raise ValueError(f"image_channels={channels} is not possible; choose 1 (greyscale) or 3 (colour).")
    return MODES[channels]


def refuse_crop_box(crop_box: tuple[int, int, int, int] | None) -> None:
    """Refuses a box that lies in no image, however large.

    Raises:
        ValueError: If it begins outside of the image, or ends before it begins.
    """
    left, top, right, bottom = crop_box or (0, 0, 1, 1)
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError(
            f"crop_box={crop_box} is not possible; it must be left, top, right and bottom in pixels, with left below "
            "right and top below bottom."
        )


def upright_picture(picture: Image.Image) -> Image.Image:
    """Any picture in RGB, of its own shape: turned as its EXIF data says, transparency laid on white."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):  # 16 or 32 bits: Pillow clips these on conversion instead of scaling them
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def picture_to_uint8(picture: Image.Image) -> torch.Tensor:
    """A picture to `(C, H, W)` uint8."""
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 values of any shape to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_pictures(images: torch.Tensor, output_size: int | None = None) -> list[Image.Image]:
    """Images `(B, C, H, W)` in [-1, 1], clipped to that range, to pictures, resized with Lanczos to `output_size`
    pixels if that differs from their size."""
    values = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in values]
    if output_size and output_size != images.shape[-1]:
        pictures = [picture.resize((output_size, output_size), Image.Resampling.LANCZOS) for picture in pictures]
    return pictures


def picture_grid(pictures: list[Image.Image], columns: int = GRID_COLUMNS) -> Image.Image:
    """Pictures of one size, side by side in rows of `columns`, without gaps."""
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    grid = Image.new(pictures[0].mode, (columns * width, -(-len(pictures) // columns) * height))
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number % columns * width, number // columns * height))
    return grid


AUGMENT_CHANCES, DIFF_AUGMENT_CHANCES = 4, 5  # random numbers that an image takes


def augment(images: torch.Tensor, chances: torch.Tensor, flip: bool = True, color_jitter: float = 0.0) -> torch.Tensor:
    """Mirrors half of the images `(B, C, H, W)` in [-1, 1] and, if `color_jitter` > 0, changes brightness, contrast
    and saturation of each by a factor within 1 +- `color_jitter`; the result is clipped to [-1, 1]. `chances`
    `(B, 4)` in [0, 1) decide."""
    mirror, *factors = chances[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    if flip:
        images = torch.where(mirror < 0.5, images.flip(3), images)
    if color_jitter > 0:
        brightness, contrast, saturation = (1 + color_jitter * (2 * factor - 1) for factor in factors)
        # brightness and contrast are affine, and done at once: each pass over a batch costs as much as a layer's norm
        mean = (images.mean((1, 2, 3), keepdim=True) + 1) * brightness - 1
        images = images * (brightness * contrast) + ((brightness - 1) * contrast + mean * (1 - contrast))
        images = _blend(images, images.mean(1, keepdim=True), saturation).clamp_(-1, 1)
    return images


def diff_augment(images: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """Differentiable augmentation for a discriminator (Zhao et al. 2020, policy "color,translation"): per image a
    brightness offset within 0.5, a saturation within 0 to 2, a contrast within 0.5 to 1.5, and a shift of up to an
    eighth of the edge, filled with grey. `(B, C, H, W)` to the same; `chances` `(B, 5)` in [0, 1) decide."""
    num_images, _, height, width = images.shape
    offset, saturation, contrast = chances[:, :3, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    images = images + (offset - 0.5)
    images = _blend(images, images.mean(1, keepdim=True), 2 * saturation)
    images = _blend(images, images.mean((1, 2, 3), keepdim=True), 0.5 + contrast)
    reach = width // 8
    rows, columns = (
        (chance * (2 * reach + 1)).long() + torch.arange(edge, device=images.device)
        for chance, edge in zip(chances[:, 3:, None].unbind(1), (height, width), strict=True)
    )  # (B, H), (B, W)
    padded = F.pad(images, [reach] * 4)
    every_image = torch.arange(num_images, device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[every_image, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return shifted.permute(0, 3, 1, 2)


def _blend(images: torch.Tensor, anchor: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return anchor + (images - anchor) * factor
