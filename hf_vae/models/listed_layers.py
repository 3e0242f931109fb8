"""Networks that are defined layer by layer, as the recipe of a published system lists them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .blocks import Decoder, Encoder, activations


MAX_VALUES = 2**26  # of one image, after one layer: bounds the memory that few weights can ask for


class ToImageRange(nn.Module):
    """Values in [0, 1], from a sigmoid, to images in [-1, 1]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values - 1


class ListedEncoder(nn.Module):
    """Images to `num_features` flat features. The line `latents` is a dense layer of that size.

    Raises:
        ValueError: If the layers give another number of features.
    """

    def __init__(self, lines: tuple[str, ...], image_size: int, image_channels: int, num_features: int):
        super().__init__()
        lines = tuple(f"dense {num_features}" if line == "latents" else line for line in lines)
        self.trunk, shape = build_layers(lines, (image_channels, image_size, image_size))
        if math.prod(shape) != num_features:
            raise ValueError(
                f"encoder_layers give {math.prod(shape)} numbers for an image, but {num_features} are needed; end "
                "them with the line latents."
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(images).flatten(1)  # (B, num_features)


class ListedDecoder(nn.Module):
    """Latents `(B, latent_dim)` to images.

    Raises:
        ValueError: If the layers give another shape than that of an image.
    """

    def __init__(self, lines: tuple[str, ...], image_size: int, image_channels: int, latent_dim: int):
        super().__init__()
        self.trunk, shape = build_layers(lines, (latent_dim,))
        if shape != (image_channels, image_size, image_size):
            raise ValueError(
                f"decoder_layers give {shape}, not images of {(image_channels, image_size, image_size)}; change "
                "their last lines, image_size or image_channels."
            )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.trunk(latents)


class ListedDiscriminator(nn.Module):
    """Images to logits `(B,)`. Its features are the values after each activation.

    Raises:
        ValueError: If the layers give more than one number for an image.
    """

    def __init__(self, lines: tuple[str, ...], image_size: int, image_channels: int):
        super().__init__()
        self.trunk, shape = build_layers(lines, (image_channels, image_size, image_size))
        if math.prod(shape) != 1:
            raise ValueError(
                f"discriminator_layers give {shape}, not one number for each image; end them with dense 1."
            )

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """As `Discriminator.features`."""
        return activations(self.trunk, images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(images).flatten()


def make_encoder(
    lines: tuple[str, ...] | None, image_size: int, image_channels: int, latent_dim: int, *shape: Any, outputs: int = 1
) -> nn.Module:
    """The encoder that `lines` list, or else an `Encoder` with the further arguments `shape`."""
    if lines:
        return ListedEncoder(lines, image_size, image_channels, outputs * latent_dim)
    return Encoder(image_size, image_channels, latent_dim, *shape, outputs=outputs)  # type: ignore[misc]  # shape ends before it


def make_decoder(
    lines: tuple[str, ...] | None, image_size: int, image_channels: int, latent_dim: int, *shape: Any
) -> nn.Module:
    """The decoder that `lines` list, or else a `Decoder` with the further arguments `shape`."""
    if lines:
        return ListedDecoder(lines, image_size, image_channels, latent_dim)
    return Decoder(image_size, image_channels, latent_dim, *shape)


def build_layers(lines: tuple[str, ...], shape: tuple[int, ...]) -> tuple[nn.Sequential, tuple[int, ...]]:
    """The layers that `lines` name, one each, for inputs of `shape`, which is (C, H, W) or (N,), and the shape of
    their output.

    - `conv CHANNELS KERNEL STRIDE` and `convt ...`, a convolution and a transposed one, padded so that the size is
      divided or multiplied by the stride; `PADDING` may follow, and `nobias`.
    - `dense NUMBERS`, of all values, in any shape; `nobias` may follow.
    - `view CHANNELS SIZE`, flat values as an image; `flatten`, the reverse.
    - `batchnorm`, `relu`, `leaky_relu SLOPE`, `selu`, `tanh`, `dropout SHARE`, `dropout_channels SHARE`.
    - `sigmoid`, whose values in [0, 1] become images in [-1, 1].

    Raises:
        ValueError: If a line does not name such a layer, or does not suit the line before it.
    """
    layers: list[nn.Module] = []
    for line in lines:
        try:
            layer, shape = _build_layer(*line.split(), shape=shape)
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise ValueError(f"The layer {line!r} cannot follow values of shape {shape}: {error}") from error
        layers += layer
        if math.prod(shape) > MAX_VALUES:
            raise ValueError(f"The layer {line!r} gives {shape}, more than {MAX_VALUES:,} values for an image.")
    return nn.Sequential(*layers), shape


def _build_layer(kind: str, *words: str, shape: tuple[int, ...]) -> tuple[list[nn.Module], tuple[int, ...]]:
    numbers, bias = [float(word) for word in words if word != "nobias"], "nobias" not in words
    if kind in ("conv", "convt"):
        channels, kernel, stride = (int(number) for number in numbers[:3])
        padding = int(numbers[3]) if len(numbers) > 3 else (kernel - stride + 1) // 2
        layer: nn.Module
        if kind == "conv":
            layer = nn.Conv2d(shape[0], channels, kernel, stride, padding, bias=bias)
            size = (shape[1] + 2 * padding - kernel) // stride + 1
        else:
            added = stride + 2 * padding - kernel if len(numbers) == 3 else 0
            layer = nn.ConvTranspose2d(shape[0], channels, kernel, stride, padding, added, bias=bias)
            size = (shape[1] - 1) * stride - 2 * padding + kernel + added
        if size < 1:
            raise ValueError(f"a size of {size} pixels is left")
        return [layer], (channels, size, size)
    if kind == "dense":
        (width,) = (int(number) for number in numbers)
        flat = [nn.Flatten()] if len(shape) > 1 else []
        return [*flat, nn.Linear(math.prod(shape), width, bias=bias)], (width,)
    if kind == "view":
        channels, size = (int(number) for number in numbers)
        if math.prod(shape) != channels * size**2:
            raise ValueError(f"{math.prod(shape)} values are not {channels}x{size}x{size}")
        return [nn.Unflatten(1, (channels, size, size))], (channels, size, size)
    if kind == "flatten":
        return [nn.Flatten()], (math.prod(shape),)
    if kind == "batchnorm":
        return [nn.BatchNorm2d(shape[0]) if len(shape) > 1 else nn.BatchNorm1d(shape[0])], shape
    simple: dict[str, Callable[..., nn.Module]] = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "selu": nn.SELU,
        "tanh": nn.Tanh,
        "sigmoid": lambda: nn.Sequential(nn.Sigmoid(), ToImageRange()),
        "dropout": nn.Dropout,
        "dropout_channels": nn.Dropout2d,
    }
    if kind not in simple:
        raise ValueError(
            f"there is no layer {kind!r}; there are conv, convt, dense, view, flatten, batchnorm, {', '.join(simple)}"
        )
    return [simple[kind](*numbers)], shape
