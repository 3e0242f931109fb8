"""What distances in features detect and what they miss, for each network. The study measures the distance of held-out
images to other real images, to blurred, dotted, noisy and malformed ones, and to samples of models.

python benchmarks/feature_study.py --train_data_dir photos/ --models runs/photos-vae
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

from benchmarks.report import print_header, print_table
from hf_vae import AutoGenerator
from hf_vae.config import DataConfig
from hf_vae.data.cached import load_images
from hf_vae.evaluation.features import (
    DEFAULT_NETWORKS,
    FeatureNetwork,
    extract,
    open_networks,
    shipped_network,
)
from hf_vae.evaluation.metrics import frechet_distance, kernel_distance, laplacian_variance, precision, recall
from hf_vae.flags import FLAG_STYLE
from hf_vae.latents.encoding import ENCODE_BATCH
from hf_vae.pictures import picture_grid, to_float, to_pictures


SHOWN = 8  # images of each set on the sheet

Damage = Callable[[torch.Tensor], torch.Tensor]


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images convolved with a Gaussian of standard deviation `sigma` pixels."""
    reach = math.ceil(3 * sigma)
    window = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    weights = (window / window.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, weights, groups=images.shape[1])
    return F.conv2d(rows, weights.mT, groups=images.shape[1])


def dotted(images: torch.Tensor, period: int) -> torch.Tensor:
    """Images with fine detail, such as fur, replaced by a grid of dots. The grid repeats every `period` pixels and has
    the local strength of the detail."""
    coarse = blurred(images, 1.0)
    detail = (images - coarse).mean(1, keepdim=True)
    strength = blurred(detail.square(), 3.0).clamp(min=0).sqrt()
    wave = torch.cos(2 * math.pi * torch.arange(images.shape[-1]) / period)
    dots = wave[:, None] * wave[None, :]
    return coarse + strength * dots / dots.square().mean().sqrt()


def noisy(images: torch.Tensor, std: float) -> torch.Tensor:
    """Images with white noise of standard deviation `std`."""
    return images + std * torch.randn(images.shape, generator=_generator())


def warped(images: torch.Tensor, pixels: float) -> torch.Tensor:
    """Malformed images: each part is moved smoothly, by `pixels` as a root mean square."""
    size = images.shape[-1]
    coarse = torch.randn(len(images), 2, 6, 6, generator=_generator())
    moves = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    moves *= pixels * 2 / size / moves.square().mean().sqrt()
    grid = F.affine_grid(torch.eye(2, 3).expand(len(images), -1, -1), images.shape, align_corners=False)
    return F.grid_sample(images, grid + moves.movedim(1, -1), padding_mode="reflection", align_corners=False)


def lopsided(images: torch.Tensor, pixels: int) -> torch.Tensor:
    """Images whose right half is lower by `pixels`."""
    middle = images.shape[-1] // 2
    moved = images.clone()
    moved[..., pixels:, middle:] = images[..., :-pixels, middle:]
    return moved


def halves_of_two(images: torch.Tensor) -> torch.Tensor:
    """Images whose right half is that of another image."""
    middle = images.shape[-1] // 2
    return torch.cat([images[..., :middle], images.roll(1, 0)[..., middle:]], -1)


def shuffled(images: torch.Tensor, cell: int) -> torch.Tensor:
    """Images whose cells of `cell` x `cell` pixels are shuffled."""
    count = images.shape[-1] // cell
    cells = F.pixel_unshuffle(images, cell).flatten(2)  # (N, C * cell^2, cells)
    order = torch.rand(len(images), 1, count**2, generator=_generator()).argsort(2)
    return F.pixel_shuffle(cells.gather(2, order.expand_as(cells)).unflatten(2, (count, count)), cell)


def _as_it_is(images: torch.Tensor) -> torch.Tensor:
    return images


def _without_colour(images: torch.Tensor) -> torch.Tensor:
    return images.mean(1, keepdim=True).expand_as(images)


DAMAGES: dict[str, Damage] = {
    "real": _as_it_is,
    **{f"blurred, {sigma} px": partial(blurred, sigma=sigma) for sigma in (0.5, 0.75, 1.0, 1.5)},
    **{f"fur as dots, every {period} px": partial(dotted, period=period) for period in (2, 3, 4)},
    **{f"noise, {std}": partial(noisy, std=std) for std in (0.05, 0.1)},
    **{f"warped, {pixels} px": partial(warped, pixels=pixels) for pixels in (1, 2, 3)},
    **{f"right half {pixels} px lower": partial(lopsided, pixels=pixels) for pixels in (4, 8)},
    "halves of two": halves_of_two,
    **{f"cells of {cell} px shuffled": partial(shuffled, cell=cell) for cell in (16, 8)},
}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Untrained:
    """The architecture of "simclr" with random weights, to see which part of its distances is not due to training."""

    name = "untrained"

    def __init__(self):
        torch.manual_seed(0)
        self.network = FeatureNetwork().eval().requires_grad_(False)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)


class Lengths:
    """The features of "simclr" before they are normalised to one length."""

    name = "simclr, lengths kept"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return shipped_network().encoder(images)


@torch.no_grad()
def main(
    train_data_dir: Path,
    models: tuple[Path, ...] = (),
    feature_network: tuple[str, ...] = DEFAULT_NETWORKS,
    probes: bool = False,
    grey: bool = False,
    num_images: int | None = None,
    sheet: Path | None = None,
) -> None:
    """Prints a table for the images of a folder or parquet file, at 64x64 pixels.

    Args:
        train_data_dir: Folder of images, or a parquet file.
        models: Folders of models of 64x64 pixels, whose samples are measured beside the damaged images.
        feature_network: Networks to measure in, as in `hf-vae evaluate`.
        probes: Also measure in "simclr" without normalised features, and in an untrained network.
        grey: Measure all images without colour.
        num_images: Images in a set; by default as many as there are held-out images.
        sheet: File to draw the first images of each set into, one row per set.
    """
    splits = load_images(DataConfig(train_data_dir=str(train_data_dir)), 64, 3)
    count = min(num_images or len(splits.heldout), len(splits.heldout))
    heldout = to_float(splits.heldout[torch.linspace(0, len(splits.heldout) - 1, count).long()])
    others = to_float(splits.train[torch.linspace(0, len(splits.train) - 1, count).long()])
    networks = open_networks(feature_network) + ([Lengths(), Untrained()] if probes else [])
    see = _without_colour if grey else _as_it_is
    references = [extract(network, see(heldout)) for network in networks]
    sharpness = laplacian_variance(heldout).mean()
    sets: dict[str, Callable[[], torch.Tensor]] = {name: partial(damage, others) for name, damage in DAMAGES.items()}
    sets |= {f"samples of {folder.name}": partial(_samples, folder, count) for folder in models}
    print_header(
        "What distances in features detect", f"{train_data_dir}, {count:,} held-out images against as many others"
    )
    rows, shown = [], []
    for name, draw in sets.items():
        images = see(draw().clamp(-1, 1))
        shown.append(images[:SHOWN])
        rows.append([name, f"{laplacian_variance(images).mean() / sharpness:.2f}"])
        for network, reference in zip(networks, references, strict=True):
            found = extract(network, images)
            rows[-1] += [f"{frechet_distance(found, reference):.3g}", f"{kernel_distance(found, reference):.3f}"]
            rows[-1] += [f"{precision(found, reference):.2f}, {recall(found, reference):.2f}"]
    columns = ["", "sharpness"]
    for network in networks:
        columns += [f"{network.name}: Frechet", "kernel", "precision, recall"]
    print_table(columns, rows)
    if sheet:
        picture_grid(to_pictures(torch.cat(shown), 64), SHOWN).save(sheet)


def _samples(folder: Path, count: int) -> torch.Tensor:
    model, generator = AutoGenerator.from_pretrained(folder), _generator()
    sizes = [min(ENCODE_BATCH, count - first) for first in range(0, count, ENCODE_BATCH)]
    return torch.cat([model.sample(size, generator) for size in sizes])


if __name__ == "__main__":
    tyro.cli(main, **FLAG_STYLE)
