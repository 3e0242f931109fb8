"""Faces of five coloured dots, and a stand-in for the network that finds the points of real ones."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from hf_vae.data import align, landmarks
from hf_vae.evaluation import named_sliders


COLORS = torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1], [1, -1, 1]]).float()  # in [-1, 1]
FACE = torch.tensor([[0.3, 0.38], [0.7, 0.38], [0.5, 0.6], [0.35, 0.78], [0.65, 0.78]])  # shares of the edge


def turned(points: torch.Tensor, degrees: float) -> torch.Tensor:
    """Points `(5, 2)` turned clockwise around their mean."""
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
    return (points - points.mean(0)) @ turn + points.mean(0)


def draw_dots(points: torch.Tensor, size: tuple[int, int], ground: int = 128) -> Image.Image:
    """An image of `size` with a dot at each of the points `(5, 2)`, in pixels, on a grey ground."""
    scale = 4
    picture = Image.new("RGB", (size[0] * scale, size[1] * scale), (ground,) * 3)
    draw = ImageDraw.Draw(picture)
    radius = scale * float((points[1] - points[0]).norm()) / 8
    for (x, y), color in zip((scale * points).tolist(), COLORS.tolist(), strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), tuple(int(127.5 * (v + 1)) for v in color))
    return picture.resize(size, Image.Resampling.BOX)


class DotNetwork:
    """Finds the dots, as O-Net finds the points of a face: in boxes that the five dots fill, more or less."""

    def setInput(self, crops: np.ndarray) -> None:  # noqa: N802  # OpenCV's name
        assert crops.shape[1:] == (48, 48, 3) and crops.dtype == np.float32 and np.abs(crops).max() <= 1
        self.crops = torch.from_numpy(crops)  # (K, width, height, 3)

    def forward(self, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        assert names == ("dense_6", "softmax_2")
        near = ((self.crops[:, None] - COLORS[:, None, None]).norm(dim=4) < 0.7).float()  # (K, 5, width, height)
        counts = near.sum((2, 3))
        place = (torch.arange(48) + 0.5) / 48
        x = (near.sum(3) * place).sum(2) / counts.clamp(min=1)
        y = (near.sum(2) * place).sum(2) / counts.clamp(min=1)
        spread = (x[:, 1] - x[:, 0]).hypot(y[:, 1] - y[:, 0])  # the eyes' distance as a share of the box
        confidence = ((counts.min(1).values > 0) & (spread > 0.33) & (spread < 0.6)).float()
        return torch.cat([x, y], 1).numpy(), torch.stack([1 - confidence, confidence], 1).numpy()


@pytest.fixture
def dot_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-in in the place of the network."""
    for module in (landmarks, align, named_sliders):
        monkeypatch.setattr(module, "open_network", DotNetwork)
