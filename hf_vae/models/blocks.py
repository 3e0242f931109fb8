"""The three convolution stacks that every family is built from, and the rule that says which image sizes they can
make."""

import torch
import torch.nn.functional as F
from torch import nn


MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 28, 256
BLOCKS = ("residual", "plain")
GROUPS = 8
STD_GROUP = 4


def size_rule(image_size: int) -> tuple[int, int]:
    """Splits `image_size` into `bottom * 2**stages` with a bottom of 4 to 7 pixels, and returns `(bottom, stages)`.

    Raises:
        ValueError: If the size lies outside 28 to 256 or is no such product; the message names the nearest sizes.
    """
    valid = [bottom * 2**stages for stages in range(2, 7) for bottom in range(4, 8)]
    valid = sorted(size for size in valid if MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE)
    if image_size not in valid:
        nearest = sorted(sorted(valid, key=lambda size: abs(size - image_size))[:2])
        raise ValueError(
            f"image_size={image_size} cannot be made: it must be 4, 5, 6 or 7 times a power of two, between "
            f"{MIN_IMAGE_SIZE} and {MAX_IMAGE_SIZE}. The nearest are {' and '.join(map(str, nearest))}; "
            f"train at one of those and set output_size={image_size} to get pictures of that size."
        )
    stages = (image_size // 4).bit_length() - 1
    return image_size >> stages, stages


def stage_widths(width: int, max_width: int, stages: int, block: str) -> list[int]:
    """Channels after each stage, from fine to coarse: doubling from `width`, never above `max_width`.

    Raises:
        ValueError: If `block` is unknown, or a residual block's width is no multiple of its 8 normalisation groups.
    """
    if block not in BLOCKS:
        raise ValueError(f"block={block!r} is unknown; choose one of {', '.join(BLOCKS)}.")
    widths = [min(width * 2**stage, max_width) for stage in range(stages)]
    if block == "residual" and any(channels % GROUPS for channels in widths):
        raise ValueError(f"width={width} and max_width={max_width} must be multiples of {GROUPS} for residual blocks.")
    return widths


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm and SiLU before each; the second starts at zero, so the block starts as the
    identity (Goyal et al. 2017, section 5.1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        residual = self.conv1(F.silu(self.norm1(hidden)))
        return hidden + self.conv2(F.silu(self.norm2(residual)))


class Encoder(nn.Module):
    """Images `(B, C, H, W)` to features `(B, num_features)`, halving the size once per stage."""

    def __init__(
        self, image_size: int, image_channels: int, num_features: int, width: int, max_width: int, block: str
    ):
        super().__init__()
        bottom, stages = size_rule(image_size)
        widths = stage_widths(width, max_width, stages, block)
        if block == "residual":
            layers = [nn.PixelUnshuffle(2), nn.Conv2d(4 * image_channels, widths[0], 3, padding=1)]
            layers.append(ResidualBlock(widths[0]))
            for fine, coarse in zip(widths, widths[1:], strict=False):
                layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1), ResidualBlock(coarse)]
            layers += [nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU()]
        else:
            layers = [nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            for fine, coarse in zip(widths, widths[1:], strict=False):
                layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(coarse), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * bottom**2, num_features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk(images)  # (B, C, bottom, bottom)
        return self.head(hidden.flatten(1))  # (B, num_features)


class Decoder(nn.Module):
    """Latents `(B, latent_dim)` to images `(B, C, H, W)`, doubling the size once per stage.

    Residual decoders upsample by nearest neighbour and end in a pixel shuffle whose four sub-pixels start equal (ICNR,
    Aitken et al. 2017), so that no checkerboard is there at the start; their output is unbounded. Plain decoders are
    the transposed convolutions and tanh of Radford et al. 2016.
    """

    def __init__(self, image_size: int, image_channels: int, latent_dim: int, width: int, max_width: int, block: str):
        super().__init__()
        self.bottom, stages = size_rule(image_size)
        widths = stage_widths(width, max_width, stages, block)
        self.head = nn.Linear(latent_dim, widths[-1] * self.bottom**2)
        coarse_to_fine = list(zip(widths[::-1], widths[-2::-1], strict=False))
        if block == "residual":
            layers = [ResidualBlock(widths[-1])]
            for coarse, fine in coarse_to_fine:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1), ResidualBlock(fine)]
            to_pixels = nn.Conv2d(widths[0], 4 * image_channels, 3, padding=1)
            with torch.no_grad():
                to_pixels.weight.copy_(to_pixels.weight[::4].repeat_interleave(4, dim=0))
                to_pixels.bias.zero_()
            layers += [nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), to_pixels, nn.PixelShuffle(2)]
        else:
            layers = [nn.BatchNorm2d(widths[-1]), nn.ReLU()]
            for coarse, fine in coarse_to_fine:
                layers += [nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(fine), nn.ReLU()]
            layers += [nn.ConvTranspose2d(widths[0], image_channels, 4, stride=2, padding=1), nn.Tanh()]
        self.trunk = nn.Sequential(*layers)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        hidden = self.head(latents).unflatten(1, (-1, self.bottom, self.bottom))  # (B, C, bottom, bottom)
        return self.trunk(hidden)  # (B, image_channels, image_size, image_size)


class Discriminator(nn.Module):
    """Images `(B, C, H, W)` to logits `(B,)`, high for real ones. It has no normalisation, whose statistics differ
    between real and fake batches. The head also sees how much the features vary within groups of `STD_GROUP` images,
    one number for each group, which a generator that repeats itself cannot hide (Karras et al. 2018, section 3)."""

    def __init__(self, image_size: int, image_channels: int, width: int, max_width: int):
        super().__init__()
        bottom, stages = size_rule(image_size)
        widths = stage_widths(width, max_width, stages, "plain")
        layers = []
        for fine, coarse in zip([image_channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.mix = nn.Sequential(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1), nn.LeakyReLU(0.2))
        self.head = nn.Linear(widths[-1] * bottom**2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk(images)  # (B, C, bottom, bottom)
        spread = torch.cat([self._spread(group) for group in hidden.float().split(STD_GROUP)])  # (B, 1, 1, 1)
        spread = spread.expand(-1, 1, *hidden.shape[2:]).to(hidden.dtype)
        hidden = self.mix(torch.cat([hidden, spread], dim=1))  # (B, C, bottom, bottom)
        return self.head(hidden.flatten(1)).squeeze(1)  # (B,)

    @staticmethod
    def _spread(group: torch.Tensor) -> torch.Tensor:
        """The standard deviation of each feature within a group, averaged over features: one number, for each
        image."""
        std = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        return std.expand(len(group), 1, 1, 1)
