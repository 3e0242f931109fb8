"""Random augmentation of whole batches: of training images, and of the images that a discriminator sees."""

import torch
import torch.nn.functional as F


AUGMENT_CHANCES, MOVE_CHANCES, DIFF_AUGMENT_CHANCES = 4, 3, 5  # random numbers for each image


def augment(images: torch.Tensor, chances: torch.Tensor, flip: bool = True, color_jitter: float = 0.0) -> torch.Tensor:
    """Mirrors and recolours images.

    Args:
        images: `(B, C, H, W)` in [-1, 1].
        chances: Random numbers `(B, 4)` in [0, 1), which decide what happens to each image.
        flip: Mirror half of the images.
        color_jitter: If above 0, multiply brightness, contrast and saturation of each image by a factor within
            1 +- `color_jitter`, and clip the result to [-1, 1].
    """
    mirror, *factors = chances[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    if flip:
        images = torch.where(mirror < 0.5, images.flip(3), images)
    if color_jitter > 0:
        brightness, contrast, saturation = (1 + color_jitter * (2 * factor - 1) for factor in factors)
        # brightness and contrast are affine, so one pass does both: a pass over a batch costs as much as a norm layer
        mean = (images.mean((1, 2, 3), keepdim=True) + 1) * brightness - 1
        images = images * (brightness * contrast) + ((brightness - 1) * contrast + mean * (1 - contrast))
        images = _blend(images, images.mean(1, keepdim=True), saturation).clamp_(-1, 1)
    return images


def move(images: torch.Tensor, chances: torch.Tensor, shift: float = 0.0, zoom: float = 0.0) -> torch.Tensor:
    """Shifts and zooms images. Their mirror images fill what is left free.

    Args:
        images: `(B, C, H, W)` in [-1, 1].
        chances: Random numbers `(B, 3)` in [0, 1), which decide what happens to each image.
        shift: Largest shift, up or down and left or right, as a fraction of the edge.
        zoom: What an image shows becomes larger or smaller by a factor between `1 / (1 + zoom)` and `1 + zoom`.
    """
    horizontal, vertical, size = (2 * chances - 1).unbind(1)  # (B,) each, in [-1, 1)
    seen = (1 + zoom) ** -size  # the part of the edge that is seen
    matrices = images.new_zeros(len(images), 2, 3)
    matrices[:, 0, 0] = matrices[:, 1, 1] = seen
    matrices[:, :, 2] = 2 * shift * torch.stack([horizontal, vertical], 1)
    places = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, places, padding_mode="reflection", align_corners=False)


def diff_augment(images: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """Differentiable augmentation for a discriminator (Zhao et al. 2020, policy "color,translation"): per image a
    brightness offset within 0.5, a saturation within 0 to 2, a contrast within 0.5 to 1.5, and a shift of up to an
    eighth of the edge, filled with grey.

    Args:
        images: `(B, C, H, W)` in [-1, 1].
        chances: Random numbers `(B, 5)` in [0, 1), which decide what happens to each image.
    """
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
