"""A plain PyTorch training loop, as a baseline. PIL decodes and augments each image each time it is used. The loop
trains in fp32 and eager mode with Adam, and reads the loss after every step."""

import random
from collections.abc import Iterator
from io import BytesIO

import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
from torch.utils.data import DataLoader, Dataset

from hf_vae import VAE
from hf_vae.pictures import picture_to_uint8, to_float


NETWORK = {
    "image_size": 64,
    "latent_dim": 128,
    "latent_size": 1,
    "width": 32,
    "max_width": 256,
    "block": "plain",
    "prior": "gaussian",
}
BATCH_SIZE = 64
COLOR_JITTER = 0.2
KL_WEIGHT = 0.01


class PictureFiles(Dataset):
    """Images decoded on access, and mirrored and recoloured at random: `(3, size, size)` floats in [-1, 1]."""

    def __init__(self, files: list[bytes], size: int, color_jitter: float):
        self.files, self.size, self.color_jitter = files, size, color_jitter

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        picture = Image.open(BytesIO(self.files[number])).convert("RGB")
        if picture.size != (self.size, self.size):
            picture = ImageOps.fit(picture, (self.size, self.size), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            picture = ImageOps.mirror(picture)
        if self.color_jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                factor = random.uniform(1 - self.color_jitter, 1 + self.color_jitter)
                picture = enhance(picture).enhance(factor)
        return to_float(picture_to_uint8(picture))


class PlainLoop:
    """A VAE of four convolutions and BatchNorm, trained on the mean squared error and 0.01 of the mean KL divergence
    with Adam at 1e-3."""

    def __init__(
        self, files: list[bytes], num_workers: int = 0, color_jitter: float = COLOR_JITTER, image_size: int = 64
    ):
        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = VAE(**NETWORK | {"image_size": image_size}).to(self.device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loader = DataLoader(
            PictureFiles(files, image_size, color_jitter),
            BATCH_SIZE,
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        self.batches = self._batches()
        self.losses: list[float] = []

    def run(self, num_steps: int) -> None:
        """Makes `num_steps` updates."""
        for _ in range(num_steps):
            images = next(self.batches).to(self.device, non_blocking=True)
            noise = torch.randn(len(images), NETWORK["latent_dim"], device=self.device)
            output = self.model(images, noise)
            kl = 0.5 * (output.mean**2 + output.logvar.exp() - 1 - output.logvar)
            loss = F.mse_loss(output.sample, images) + KL_WEIGHT * kl.mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())

    def _batches(self) -> Iterator[torch.Tensor]:
        while True:
            yield from self.loader
