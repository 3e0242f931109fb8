"""The three convolution stacks that every family is built from, and the rule for the image sizes that they can
make."""

from typing import Any

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
        ValueError: If the size is outside 28 to 256 or is not such a product; the message names the nearest sizes.
    """
    valid = [bottom * 2**stages for stages in range(2, 7) for bottom in range(4, 8)]
    valid = sorted(size for size in valid if MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE)
    if image_size not in valid:
        nearest = sorted(sorted(valid, key=lambda size: abs(size - image_size))[:2])
        raise ValueError(
            f"image_size={image_size} is not possible: it must be 4, 5, 6 or 7 times a power of two, between "
            f"{MIN_IMAGE_SIZE} and {MAX_IMAGE_SIZE}. The nearest are {' and '.join(map(str, nearest))}; "
            f"train at one of those and set output_size={image_size} to get images of that size."
        )
    stages = (image_size // 4).bit_length() - 1
    return image_size >> stages, stages


def grid_rule(image_size: int, latent_size: int, latent_dim: int) -> tuple[int, int]:
    """Returns `(stages, channels)` for a grid of `latent_size` x `latent_size` cells: how often the image size is
    halved, and how many of the `latent_dim` latents are in each cell.

    Raises:
        ValueError: If halving `image_size` never gives such a grid, or the latents do not fill it evenly; the message
            names sizes that do.
    """
    bottom, stages = size_rule(image_size)
    sizes = [bottom * 2**power for power in range(stages)]
    if latent_size not in sizes:
        raise ValueError(
            f"latent_size={latent_size} does not suit image_size={image_size}, which halves to "
            f"{', '.join(map(str, sizes))}; choose one of these, or 1 for latents without a grid."
        )
    cells = latent_size**2
    if latent_dim % cells or latent_dim < cells:
        nearest = max(cells, latent_dim // cells * cells)
        raise ValueError(
            f"latent_dim={latent_dim} does not fill a grid of {latent_size}x{latent_size} cells evenly; choose "
            f"{nearest} or {nearest + cells}."
        )
    return (image_size // latent_size).bit_length() - 1, latent_dim // cells


def stage_widths(width: int, max_width: int, stages: int, block: str) -> list[int]:
    """Channels after each stage, from fine to coarse: doubling from `width`, never above `max_width`.

    Raises:
        ValueError: If `block` is unknown, or a residual block's width is not a multiple of its 8 normalisation groups.
    """
    if block not in BLOCKS:
        raise ValueError(f"block={block!r} is unknown; choose one of {', '.join(BLOCKS)}.")
    widths = [min(width * 2**stage, max_width) for stage in range(stages)]
    if block == "residual" and any(channels % GROUPS for channels in widths):
        raise ValueError(f"width={width} and max_width={max_width} must be multiples of {GROUPS} for residual blocks.")
    return widths


def activations(trunk: nn.Sequential, images: torch.Tensor) -> list[torch.Tensor]:
    """The values after each activation of a discriminator, in order."""
    found, hidden = [], images
    for layer in trunk:
        hidden = layer(hidden)
        if isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.SELU):
            found.append(hidden)
    return found


class UpsampledConv(nn.Conv2d):
    """Nearest-neighbour upsampling to twice the size, and a 3x3 convolution, in one: `(B, C, H, W)` to `(B, outputs,
    2H, 2W)`.

    Nine weights see four pixels that differ, so their sums do with 16 products what the two steps do with 36 (Shi et
    al. 2016, "Is the deconvolution layer the same as a convolutional layer?"). The weights are those of the
    convolution, and the values are the same but for rounding.
    """

    def __init__(self, channels: int, outputs: int):
        super().__init__(channels, outputs, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        weight = self.weight.transpose(0, 1)
        for dim in (2, 3):
            first, middle, last = weight.unbind(dim)
            weight = torch.stack([last, middle + last, first + middle, first], dim)
        return F.conv_transpose2d(hidden, weight, self.bias, stride=2, padding=1)  # weight is (C, outputs, 4, 4)


def upsampling(channels: int, outputs: int) -> list[nn.Module]:
    """Layers that double the size. The first does nothing: published weights number an upsampling layer there."""
    return [nn.Identity(), UpsampledConv(channels, outputs)]


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


class Trunk(nn.Sequential):
    """Layers with residual blocks, which `enable_gradient_checkpointing` of diffusers computes again in the backward
    pass: less memory, more time. Their GroupNorm, other than BatchNorm, keeps no statistics that this would change."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Any = None  # diffusers sets it

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self:
            if self.gradient_checkpointing and torch.is_grad_enabled() and isinstance(layer, ResidualBlock):
                hidden = self._gradient_checkpointing_func(layer, hidden)
            else:
                hidden = layer(hidden)
        return hidden


class Encoder(nn.Module):
    """Images `(B, C, H, W)` to `outputs` numbers for each latent, `(B, outputs * latent_dim)`, halving the size once
    per stage.

    With a `latent_size` of 1 the last stage has 4 to 7 pixels, and a dense layer reads all of them. Otherwise the last
    stage is a grid of `latent_size` x `latent_size` cells, each of which gives its own share of the latents. With a
    `shortcut`, a linear map of the cell's own pixels is added to these: what a network that is deep learns late, if at
    all (after the residual autoencoding of DC-AE, Chen et al. 2024).
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        latent_dim: int,
        latent_size: int,
        width: int,
        max_width: int,
        block: str,
        shortcut: bool = False,
        outputs: int = 1,
    ):
        super().__init__()
        bottom, stages = size_rule(image_size)
        self.head: nn.Module
        self.shortcut: nn.Sequential | None = None
        if latent_size > 1:
            stages, latent_channels = grid_rule(image_size, latent_size, latent_dim)
        widths = stage_widths(width, max_width, stages, block)
        layers: list[nn.Module]
        if block == "residual":
            layers = [nn.PixelUnshuffle(2), nn.Conv2d(4 * image_channels, widths[0], 3, padding=1)]
            layers.append(ResidualBlock(widths[0]))
            for fine, coarse in zip(widths, widths[1:], strict=False):
                layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1), ResidualBlock(coarse)]
            if latent_size > 1:
                layers.append(ResidualBlock(widths[-1]))
            layers += [nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU()]
        else:
            layers = [nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            for fine, coarse in zip(widths, widths[1:], strict=False):
                layers += [nn.Conv2d(fine, coarse, 4, stride=2, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(coarse), nn.LeakyReLU(0.2, inplace=True)]
        self.trunk = Trunk(*layers) if block == "residual" else nn.Sequential(*layers)
        if latent_size > 1:
            self.head = nn.Conv2d(widths[-1], outputs * latent_channels, 1)
            if shortcut and block == "residual":
                to_latents = nn.Conv2d(image_channels * 4**stages, outputs * latent_channels, 1)
                self.shortcut = nn.Sequential(nn.PixelUnshuffle(2**stages), to_latents)
        else:
            self.trunk.append(nn.Flatten())
            self.head = nn.Linear(widths[-1] * bottom**2, outputs * latent_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.head(self.trunk(images))
        if self.shortcut:
            hidden = hidden + self.shortcut(images)  # (B, outputs * latent_channels, latent_size, latent_size)
        return hidden.flatten(1)  # (B, outputs * latent_dim)


class Decoder(nn.Module):
    """Latents `(B, latent_dim)` to images `(B, C, H, W)`, doubling the size once per stage.

    Residual decoders upsample by nearest neighbour and end in a pixel shuffle whose four sub-pixels start equal (ICNR,
    Aitken et al. 2017), so that no checkerboard is there at the start; their output is unbounded. Plain decoders are
    the transposed convolutions and tanh of Radford et al. 2016. With a `latent_size` of 1 a dense layer spreads the
    latents over the coarsest stage. Otherwise they are a grid with that many cells on a side, as in `Encoder`. With a
    `shortcut` a linear map of each cell's latents to its pixels is added to the output.
    """

    def __init__(
        self,
        image_size: int,
        image_channels: int,
        latent_dim: int,
        latent_size: int,
        width: int,
        max_width: int,
        block: str,
        shortcut: bool = False,
    ):
        super().__init__()
        bottom, stages = size_rule(image_size)
        self.head: nn.Module
        self.shortcut: nn.Sequential | None = None
        self.latent_shape: tuple[int, ...]
        if latent_size > 1:
            stages, latent_channels = grid_rule(image_size, latent_size, latent_dim)
        widths = stage_widths(width, max_width, stages, block)
        if latent_size > 1:
            self.latent_shape = (latent_channels, latent_size, latent_size)
            self.head = nn.Conv2d(latent_channels, widths[-1], 3, padding=1)
            self.coarsest_shape = (widths[-1], latent_size, latent_size)
            if shortcut and block == "residual":
                to_pixels = nn.Conv2d(latent_channels, image_channels * 4**stages, 1)
                self.shortcut = nn.Sequential(to_pixels, nn.PixelShuffle(2**stages))
        else:
            self.latent_shape = (latent_dim,)
            self.head = nn.Linear(latent_dim, widths[-1] * bottom**2)
            self.coarsest_shape = (widths[-1], bottom, bottom)
        coarse_to_fine = list(zip(widths[::-1], widths[-2::-1], strict=False))
        layers: list[nn.Module]
        if block == "residual":
            layers = [ResidualBlock(widths[-1]) for _ in range(2 if latent_size > 1 else 1)]
            for coarse, fine in coarse_to_fine:
                layers += [*upsampling(coarse, fine), ResidualBlock(fine)]
            to_pixels = nn.Conv2d(widths[0], 4 * image_channels, 3, padding=1)
            with torch.no_grad():
                to_pixels.weight.copy_(to_pixels.weight[::4].repeat_interleave(4, dim=0))
                to_pixels.get_parameter("bias").zero_()
            layers += [nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), to_pixels, nn.PixelShuffle(2)]
        else:
            layers = [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
            for coarse, fine in coarse_to_fine:
                layers += [nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(fine), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(widths[0], image_channels, 4, stride=2, padding=1), nn.Tanh()]
        self.trunk = Trunk(*layers) if block == "residual" else nn.Sequential(*layers)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.unflatten(1, self.latent_shape)
        images = self.trunk(self.head(latents).reshape(-1, *self.coarsest_shape))
        if self.shortcut:
            images = images + self.shortcut(latents)
        return images  # (B, image_channels, image_size, image_size)


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

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each stage sees in images `(B, C, H, W)`, from fine to coarse: `(B, width, H/2, W/2)` and so on."""
        return activations(self.trunk, images)

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
