"""Trains a feature network for measures, and prints how well it tells images apart.

python -m hf_vae.evaluation.train_features --folders data/cats data/lfw data/utkface data/simpsons
"""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from diffusers.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import nn
from tqdm import trange

from ..config import DataConfig
from ..data.cached import load_images
from ..flags import FLAG_STYLE
from ..hardware import computes_in_bfloat16
from ..objectives.augmentation import AUGMENT_CHANCES, augment
from ..pictures import to_float
from .features import SHIPPED, FeatureNetwork, extract


COLOR_JITTER = 0.4
SMALLEST_CROP = 0.5  # of the edge
TEMPERATURE = 0.2


def main(
    folders: list[Path], output_dir: Path = SHIPPED, steps: int = 800, train_batch_size: int = 256, seed: int = 0
) -> None:
    """Trains on the training images of all folders together, and prints how often one view of a held-out image is
    nearest to the other view of the same image, among 1,000.

    Args:
        folders: Folders of images or parquet files.
        output_dir: Folder to write the network to.
        steps: Number of updates.
        train_batch_size: Images in a batch. Each is seen in two views.
        seed: Seed of the weights, the order and the views.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = FeatureNetwork().to(memory_format=torch.channels_last)
    in_bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=computes_in_bfloat16(torch.device("cpu")))
    head = nn.Sequential(nn.ReLU(), nn.Linear(network.config.num_features, 64))
    splits = [load_images(DataConfig(train_data_dir=str(folder)), network.config.image_size, 3) for folder in folders]
    images = torch.cat([split.train[:] for split in splits])
    heldout = torch.cat([split.heldout[:] for split in splits])
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in (bar := trange(steps)):
        batch = to_float(images[torch.randint(len(images), (train_batch_size,), generator=generator)])
        views = torch.cat([view(batch, generator), view(batch, generator)])
        with in_bfloat16:
            projected = head(network(views.contiguous(memory_format=torch.channels_last)))
        loss = contrastive_loss(projected.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    network.eval().save_pretrained(output_dir)
    shutil.copymode(output_dir / CONFIG_NAME, output_dir / SAFETENSORS_WEIGHTS_NAME)
    some = to_float(heldout[torch.randperm(len(heldout), generator=generator)[:1000]])
    first, second = (F.normalize(extract(network, view(some, generator))) for _ in range(2))
    found = ((first @ second.T).argmax(1) == torch.arange(len(some))).double().mean().item()
    print(
        f"Trained on {len(images):,} images. Of {len(some):,} held-out images, {found:.1%} were found by another view."
    )


def view(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random view of images `(B, C, H, W)` in [-1, 1], of the same shape: flipped or not, with other colours, and a
    random square crop with half to all of the edge, resized to the image again."""
    count = len(images)
    images = augment(images, torch.rand(count, AUGMENT_CHANCES, generator=generator), True, COLOR_JITTER)
    scale = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(count, generator=generator)
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale)[:, None]
    cut = torch.zeros(count, 2, 3)
    cut[:, 0, 0] = cut[:, 1, 1] = scale
    cut[:, :, 2] = shift
    return F.grid_sample(images, F.affine_grid(cut, list(images.shape), align_corners=False), align_corners=False)


def contrastive_loss(features: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of finding the other view of each image among all views of the batch, by cosine similarity
    (NT-Xent, Chen et al. 2020, equation 1): `features` (2 B, F), the first views before the second ones, to a
    scalar."""
    features = F.normalize(features)
    similarity = (features @ features.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(features)).roll(len(features) // 2)
    return F.cross_entropy(similarity, partner)


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
