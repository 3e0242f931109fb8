"""What the networks leave of a picture, cell by cell."""

import torch
import torch.nn.functional as F
from torch import nn


class Detail(nn.Module):
    """The principal components of what a trained decoder leaves of a picture, within each cell of the latents' grid:
    `num_components` numbers a cell, in standard deviations, by a linear map of the cell's pixels and back.

    Args:
        image_size: Edge of the images, in pixels.
        image_channels: Their channels.
        latent_size: Edge of the grid of cells.
        detail_dim: Numbers of all cells together, D.

    Raises:
        ValueError: If there is no grid, D does not fill it evenly, or a cell has fewer values than numbers.
    """

    def __init__(self, image_size: int, image_channels: int, latent_size: int, detail_dim: int):
        super().__init__()
        self.cell, self.latent_size = image_size // latent_size, latent_size
        num_components, left_over = divmod(detail_dim, latent_size**2)
        num_values = image_channels * self.cell**2
        if latent_size == 1 or left_over or not 0 < num_components <= num_values:
            raise ValueError(
                f"detail_dim={detail_dim} does not suit latent_size={latent_size} and image_size={image_size}; choose "
                f"0 for none, or, on a grid, a multiple of its {latent_size**2} cells up to "
                f"{num_values * latent_size**2}."
            )
        self.register_buffer("components", torch.zeros(num_components, num_values))
        self.register_buffer("stds", torch.ones(num_components))

    def encode(self, left: torch.Tensor) -> torch.Tensor:
        """What is left of images, `(B, C, H, W)`, to numbers `(B, D)`."""
        maps = self.components / self.stds[:, None]
        return F.conv2d(F.pixel_unshuffle(left, self.cell), maps[..., None, None]).flatten(1)

    def decode(self, details: torch.Tensor) -> torch.Tensor:
        """Numbers `(B, D)` to what they add to images, `(B, C, H, W)`."""
        grids = details.unflatten(1, (-1, self.latent_size, self.latent_size))
        maps = (self.components * self.stds[:, None]).T
        return F.pixel_shuffle(F.conv2d(grids, maps[..., None, None]), self.cell)

    @torch.no_grad()
    def fit(self, covariance: torch.Tensor) -> None:
        """Takes the components from the `covariance` (C * cell^2, C * cell^2) of what is left of a cell."""
        variances, vectors = torch.linalg.eigh(covariance.cpu().double())  # ascending, vectors in columns
        count = len(self.stds)
        self.components.copy_(vectors.flip(1).T[:count])
        self.stds.copy_(variances.flip(0)[:count].clamp(min=1e-12).sqrt())


"""Reading a model folder that anybody may have written: what is in it is compared with what the class would have
written, before memory is taken for it."""

import inspect
import json
import math
import os
import re
from pathlib import Path
from reprlib import repr as short_repr
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from diffusers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open


MAX_CONFIG_BYTES = 2**16
MAX_HEADER_BYTES = 2**20
MAX_PARAMETERS = 2**28  # 1 GiB in single precision; the largest recipe has half
MAX_OUTPUT_SIZE = 1024
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
NOT_ARGUMENTS = {"_class_name", "_diffusers_version", "_name_or_path", "auto_map"}
FLOATS = {"F16", "BF16", "F32", "F64"}  # as safetensors calls them
AUTOMATIC_DEVICES = ("auto", "balanced", "balanced_low_0", "sequential")  # as accelerate calls its ways to split
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # how the file begins that git keeps in place of a large one
CHECKPOINT_NAME = re.compile(r"(\.writing-)?checkpoint-\d+")
RUN_FILES = ("log.jsonl", "train_config.json")  # what a training writes before it writes a model
OTHER_WEIGHTS = {".bin", ".ckpt", ".h5", ".msgpack", ".pkl", ".pt", ".pth"}


def checked_folder(model_class: type, path: str | os.PathLike, variant: str | None = None, **options: Any) -> Path:
    """The folder of the model at `path`, a folder or a Hub id, once its configuration and weights are found to be what
    `model_class` writes. `options` are those of diffusers' `from_pretrained`.

    Raises:
        ValueError: If anything in there is missing, left over, malformed, too large, not finite, or elsewhere.
    """
    weights = SAFETENSORS_WEIGHTS_NAME
    if variant:
        weights = weights.replace(".safetensors", f".{variant}.safetensors")
    folder = find_folder(path, [CONFIG_NAME, weights], **options)
    config = read_config(folder)
    if config["_class_name"] != model_class.__name__:
        raise ValueError(
            f"{path} is a {config['_class_name']}, not a {model_class.__name__}: AutoGenerator picks a class."
        )
    arguments = _checked_arguments(model_class, config, options, folder / CONFIG_NAME)
    if (folder / SAFE_WEIGHTS_INDEX_NAME).exists():
        raise ValueError(f"{path} has weights in several files; save the model again with save_pretrained, in one.")
    _check_weights(_own_file(folder, weights), _state_without_memory(model_class, arguments, folder / CONFIG_NAME))
    return folder


def find_folder(path: str | os.PathLike, names: list[str], subfolder: str | None = None, **options: Any) -> Path:
    """The folder of the model at `path`, a folder, or a Hub id, of which the files `names` are downloaded. A `~` in
    front is the home folder.

    Raises:
        ValueError: If there is neither, or it holds no model; the message says what it holds instead.
    """
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        folder = folder / (subfolder or "")
        if not (folder / CONFIG_NAME).is_file():
            raise ValueError(_why_it_is_missing(folder, CONFIG_NAME))
        return folder
    if folder.exists():
        raise ValueError(f"{path} is a file, not a model folder; pass the folder that holds {CONFIG_NAME}.")
    hub_options = {name: options[name] for name in HUB_OPTIONS if name in options}
    patterns = [f"{subfolder}/{name}" if subfolder else name for name in names]
    try:
        folder = Path(snapshot_download(str(path), allow_patterns=patterns, **hub_options)) / (subfolder or "")
    except HFValidationError as error:
        raise ValueError(
            f"{path} is neither a model folder here nor the id of a model on the Hub, such as me/my-vae."
        ) from error
    except OSError as error:
        raise ValueError(f"{path} is neither a model folder here nor a model that the Hub gives. {error}") from error
    if not (folder / CONFIG_NAME).is_file():
        place = f"{path}, folder {subfolder}," if subfolder else path
        raise ValueError(f"{place} on the Hub has no {CONFIG_NAME}: it is not a model that was pushed from here.")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """What the `config.json` in `folder` holds; it names a class, which may be none of ours.

    Raises:
        ValueError: If there is none, or it is no JSON of a configuration.
    """
    file = _own_file(folder, CONFIG_NAME)
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{file} has more than {MAX_CONFIG_BYTES:,} bytes: it is no configuration of a model.")
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON that can be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise ValueError(f"{file} names no class of model in _class_name: save the model with save_pretrained.")
    return config


def refuse_output_size(output_size: int | None) -> None:
    """Raises a `ValueError` for pictures that are larger than the memory of whoever draws them may allow."""
    if output_size is not None and not 1 <= output_size <= MAX_OUTPUT_SIZE:
        raise ValueError(
            f"output_size={short_repr(output_size)} is not possible; choose one from 1 to {MAX_OUTPUT_SIZE}."
        )


def refuse_lfs_pointer(file: Path, content: str) -> None:
    """Raises a `ValueError` if `file` is what git keeps in place of a large file, whose `content` was not fetched."""
    if is_lfs_pointer(file):
        raise ValueError(
            f"{file} is a Git LFS pointer, not the {content}: run `git lfs pull` in its repository, or download the "
            "file itself."
        )


def is_lfs_pointer(file: Path) -> bool:
    """Whether `file` is what git keeps in place of a large one. What cannot be opened is left to its reader, who says
    why."""
    try:
        with open(file, "rb") as start:
            return start.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def device_of_map(device_map: Any) -> torch.device:
    """The device that diffusers' argument `device_map` names. The networks are too small to be split over several:
    "auto" and its like are the accelerator where there is one, and else the CPU.

    Raises:
        ValueError: If it names several devices, or one that cannot be used here.
    """
    device = device_map[""] if isinstance(device_map, dict) and list(device_map) == [""] else device_map
    if isinstance(device, str) and device in AUTOMATIC_DEVICES:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device  # which fails where there is no such device
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"device_map={short_repr(device_map)} is not possible: a model lies on one device, which must exist here. "
            f"Leave device_map out and use .to(device). {error}"
        ) from error


def _own_file(folder: Path, name: str) -> Path:
    """A file of `folder` that lies in it, or where the Hub's cache keeps what its folders link to."""
    file = folder / name
    if not file.is_file():  # neither is a pipe, which would be waited for
        raise ValueError(_why_it_is_missing(folder, name))
    places = [folder, *(parent.parent / "blobs" for parent in folder.absolute().parents if parent.name == "snapshots")]
    if not any(file.resolve().is_relative_to(place.resolve()) for place in places):
        raise ValueError(f"{file} is a link to a file outside of its folder; put the file itself there.")
    refuse_lfs_pointer(file, "configuration" if name == CONFIG_NAME else "weights")
    return file


def _why_it_is_missing(folder: Path, name: str) -> str:
    """What a folder without the file `name` holds instead of a model, and the way out."""
    if not folder.is_dir():
        return f"{folder} does not exist."
    if CHECKPOINT_NAME.fullmatch(folder.absolute().name) or (folder / "manifest.json").is_file():
        run = folder.absolute().parent if folder == Path() else folder.parent
        finished = (run / CONFIG_NAME).is_file()
        way_out = f"The finished model is in {run}." if finished else f"{run} has no finished model. {_to_finish(run)}"
        return f"{folder} is a checkpoint to resume from, not a model. {way_out}"
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return f"{folder} is empty; a model folder holds {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME}."
    if CONFIG_NAME not in found:
        if any(CHECKPOINT_NAME.fullmatch(other) or other in RUN_FILES for other in found):
            return f"{folder} is a run that is not finished: it has no model yet. {_to_finish(folder)}"
        if models := [str(folder / other) for other in found if (folder / other / CONFIG_NAME).is_file()]:
            return f"{folder} is not a model, but holds {len(models)}; pass one of them: {_first(models)}."
    missing = f"{folder} has no file named {name}."
    if others := [other for other in found if Path(other).suffix in OTHER_WEIGHTS]:
        return (
            f"{missing} Only safetensors are read, and {_first(others)} is in another format, which can hold any "
            "program: ask the author of the weights for safetensors."
        )
    stem, suffix = SAFETENSORS_WEIGHTS_NAME.split(".")
    if variants := [other.split(".")[1] for other in found if re.fullmatch(rf"{stem}\.\w+\.{suffix}", other)]:
        return f"{missing} It has the variants {_first(variants)}: pass variant={variants[0]!r}."
    return f"{missing} A model folder holds what save_pretrained writes: {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME}."


def _to_finish(run: Path) -> str:
    return (
        f"To finish the run, start it with the same settings and --output_dir {run} --resume_from_checkpoint latest."
    )


def _first(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _checked_arguments(
    model_class: type, config: dict[str, Any], options: dict[str, Any], file: Path
) -> dict[str, Any]:
    """The arguments that a configuration, and the caller's `options` over it, give to the model's class."""
    parameters = dict(list(inspect.signature(model_class.__init__).parameters.items())[1:])  # without self
    if unknown := sorted(set(config) - set(parameters) - NOT_ARGUMENTS):
        raise ValueError(
            f"{file} has {', '.join(map(short_repr, unknown))}, which a {model_class.__name__} does not know; it was "
            "written by another version, or by hand."
        )
    arguments = {name: value for name, value in {**config, **options}.items() if name in parameters}
    for name, value in arguments.items():
        if not _is_of_kind(value, parameters[name].annotation):
            kind = inspect.formatannotation(parameters[name].annotation)
            raise ValueError(f"{file}: {name}={short_repr(value)} is not possible; it must be {kind}.")
    refuse_output_size(arguments.get("output_size"))
    return arguments


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON suits an annotation."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of_kind(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is_of_kind(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is (NoneType if kind is None else kind)  # True is no number


def _state_without_memory(model_class: type, arguments: dict[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """The names and shapes of a model's weights: they lie on torch's meta device, which keeps nothing else of them."""
    try:
        with torch.device("meta"):
            state = model_class(**arguments).state_dict()
    except Exception as error:  # of any kind: sizes that overflow, that are negative, that do not fit each other
        raise ValueError(f"{file} describes no model that can be built: {error}") from error
    if (count := sum(value.numel() for value in state.values())) > MAX_PARAMETERS:
        raise ValueError(f"{file} describes a model of {count:,} weights, of which {MAX_PARAMETERS:,} are allowed.")
    return state


def _check_weights(file: Path, expected: dict[str, torch.Tensor]) -> None:
    """Compares a file's header with the weights of a model, and then looks for values that are not finite, one weight
    at a time: the file is mapped, not read into memory."""
    with open(file, "rb") as start:
        if (length := int.from_bytes(start.read(8), "little")) > MAX_HEADER_BYTES:
            raise ValueError(
                f"{file} announces a header of {length:,} bytes: it is not a safetensors file. Download it again."
            )
    try:
        with safe_open(file, framework="pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118, it is no mapping
            wrong = [f"{name} is missing" for name in expected if name not in slices]
            wrong += [f"{short_repr(name)} is left over" for name in slices if name not in expected]
            for name in slices.keys() & expected.keys():
                found, shape = tuple(slices[name].get_shape()), tuple(expected[name].shape)
                if found != shape:
                    wrong.append(f"{name} has shape {short_repr(found)} instead of {shape}")
                elif (slices[name].get_dtype() in FLOATS) != expected[name].is_floating_point():
                    wrong.append(f"{name} holds values of type {slices[name].get_dtype()}")
            if not wrong:
                wrong = [f"{name} is not finite" for name in slices if not weights.get_tensor(name).isfinite().all()]
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not as it was written: {error}. Download or copy it again.") from error
    if wrong:
        listing = "; ".join(sorted(wrong)[:5]) + ("" if len(wrong) < 6 else f"; and {len(wrong) - 5} more")
        raise ValueError(f"{file} does not hold the weights of the model in {CONFIG_NAME}: {listing}.")


"""The learned prior: a network that carries noise to latents."""

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.embeddings import Timesteps
from torch import nn


UNET_WIDTH, UNET_GROUPS = 48, 16
MLP_WIDTH, MLP_BLOCKS, TIME_CHANNELS = 512, 4, 64
SAMPLING_STEPS = 10
NUM_GAUSSIAN_DIRECTIONS = 512  # of the Gaussian that it starts from
MIN_VARIANCE = 1e-6  # along them, so that the velocity is finite at the latents themselves


class LatentFlow(nn.Module):
    """Flow matching (Lipman et al. 2023; the straight paths of Liu et al. 2023) on latents that are normalised and
    flat, `(B, Z)`: a UNet of diffusers for latents on a grid, a residual MLP for those without a place.

    It predicts the velocity `noise - latents` at the point `(1 - t) latents + t noise`; going against it from noise,
    at `t = 1`, to `t = 0` gives latents. It starts from the velocity that a Gaussian would have, whose covariance
    `start_from` takes from latents: the variances along their first principal components, `variances` (K,) along
    `directions` (K, Z), and their mean along all others, `rest` (1,). The network adds what is not Gaussian. A learned
    velocity takes latents too close to their mean; so they are normalised once more, with the `mean` and `std` (Z,)
    that `calibrate` finds.
    """

    def __init__(self, latent_dim: int, latent_size: int):
        super().__init__()
        if latent_size > 1:
            self.latent_shape = (latent_dim // latent_size**2, latent_size, latent_size)
            self.network = _unet(*self.latent_shape[:2])
        else:
            self.latent_shape = (latent_dim,)
            self.network = FlowMLP(latent_dim)
        num_directions = min(latent_dim, NUM_GAUSSIAN_DIRECTIONS)
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("variances", torch.ones(num_directions))
        self.register_buffer("rest", torch.ones(1))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    def forward(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The velocity `(B, Z)` at `points` (B, Z) and `times` (B,) in [0, 1]."""
        return self.gaussian_velocity(points, times) + self.added_velocity(points, times)

    def gaussian_velocity(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What `noise - latents` is expected to be if latents are the Gaussian, `(B, Z)`: along a direction of the
        variance v, `(t - (1 - t) v) / ((1 - t)^2 v + t^2)` times the point itself."""
        kept, noise = 1 - times[:, None], times[:, None]
        slopes, rest = (
            ((noise - kept * variance) / (kept.square() * variance + noise.square())).to(points.dtype)
            for variance in (self.variances, self.rest)
        )  # (B, K) and (B, 1)
        return rest * points + (slopes - rest) * F.linear(points, self.directions) @ self.directions

    def added_velocity(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What the network adds to that, `(B, Z)`. What it sees has the variance 1 at any time (after Karras et al.
        2022, section 5)."""
        scale = ((1 - times).square() + times.square()).sqrt()[:, None]
        seen = (points / scale).to(points.dtype).unflatten(1, self.latent_shape)
        added = self.network(seen, 1000 * times, return_dict=False)[0].flatten(1)
        return (added / scale).to(points.dtype)

    @torch.no_grad()
    def start_from(self, latents: torch.Tensor) -> None:
        """Takes the Gaussian from normalised `latents` (N, Z)."""
        variances, vectors = torch.linalg.eigh(latents.cpu().double().T.cov())  # ascending, vectors in columns
        count = len(self.variances)
        self.directions.copy_(vectors.flip(1).T[:count])
        self.variances.copy_(variances.flip(0)[:count].clamp(min=MIN_VARIANCE))
        if count < len(variances):
            self.rest.copy_(variances[:-count].mean().clamp(min=MIN_VARIANCE))

    def shifted(self, times: torch.Tensor) -> torch.Tensor:
        """Times in [0, 1] of any shape, moved to where latents take shape (Esser et al. 2024, section 5.3.2).

        A direction of the standard deviation s emerges from the noise where `t / (1 - t)` is s. So that ratio is
        multiplied by the geometric mean of s over the directions of the Gaussian, weighted by their variance: times
        move towards the noise where few directions hold most of the variance, and stay for N(0, I).
        """
        variances = torch.cat([self.variances, self.rest.expand(self.directions.shape[1] - len(self.variances))])
        ratio = ((variances * variances.log()).sum() / variances.sum() / 2).exp()
        return (times * ratio / (1 - times + times * ratio)).to(times.dtype)

    def sampling_times(self) -> torch.Tensor:
        """The times `(N,)` from noise, 1, to latents, 0, between which `sample` takes its steps."""
        return self.shifted(torch.linspace(1, 0, SAMPLING_STEPS + 1, device=self.rest.device))

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Carries `noise` (..., Z) of N(0, I) to normalised latents `(..., Z)`."""
        return (self._carry(noise, self.sampling_times()) - self.mean) / self.std

    def noise_of(self, latents: torch.Tensor) -> torch.Tensor:
        """Carries normalised `latents` (..., Z) back to the noise `(..., Z)` that `sample` makes them from, but for
        what the steps leave inexact."""
        return self._carry(latents * self.std + self.mean, self.sampling_times().flip(0))

    def calibrate(self, noise: torch.Tensor) -> None:
        """Takes mean and standard deviation of what becomes of `noise` (N, Z), which is normalised with them from then
        on, as the latents are that the flow learned from."""
        carried = self._carry(noise, self.sampling_times())
        self.mean.copy_(carried.mean(0))
        self.std.copy_(carried.std(0))

    @torch.no_grad()
    def _carry(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Follows the velocity from the first of `times` (N,) to the last one, by the two-step Adams-Bashforth method:
        as cheap a step as Euler's, with an error of second order."""
        shape, points = points.shape, points.flatten(0, -2)
        velocity = step = None
        for time, next_time in times.unfold(0, 2, 1):
            before, velocity = velocity, self(points, time.expand(len(points)))
            last_step, step = step, next_time - time
            slope = 0 if before is None else (velocity - before) / last_step
            points = points + step * (velocity + step / 2 * slope)
        return points.view(shape)


class FlowMLP(nn.Module):
    """Residual blocks over `(B, Z)`, each told the time."""

    def __init__(self, latent_dim: int):
        super().__init__()
        self.embed_time = nn.Sequential(
            Timesteps(TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0),
            nn.Linear(TIME_CHANNELS, MLP_WIDTH),
            nn.SiLU(),
        )
        self.first = nn.Linear(latent_dim, MLP_WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(MLP_WIDTH), nn.Linear(MLP_WIDTH, MLP_WIDTH), nn.SiLU(), nn.Linear(MLP_WIDTH, MLP_WIDTH)
            )
            for _ in range(MLP_BLOCKS)
        )
        self.last = nn.Sequential(nn.LayerNorm(MLP_WIDTH), nn.Linear(MLP_WIDTH, latent_dim))

    def forward(self, points: torch.Tensor, times: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        """As diffusers' UNets: points and times in [0, 1000] to a tuple of the velocity."""
        time = self.embed_time[1:](self.embed_time[0](times).to(points.dtype))
        hidden = self.first(points)
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return (self.last(F.silu(hidden)),)


def _unet(channels: int, latent_size: int) -> UNet2DModel:
    """A UNet that halves the grid while it is even, down to 4 cells. It has no attention: at its coarsest, each cell
    sees nearly all others anyway, and on a CPU attention would take as long as all the rest."""
    levels = 1
    while latent_size % 2**levels == 0 and latent_size >> levels >= 4 and levels < 3:
        levels += 1
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(UNET_WIDTH * min(2**level, 2) for level in range(levels)),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=2,
        norm_num_groups=UNET_GROUPS,
        add_attention=False,
    )


"""Points between latents."""

import math

import torch


def slerp(starts: torch.Tensor, ends: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The points at `weights` (..., 1) on the great circles (Shoemake 1985) from `starts` (..., Z), at 0, to `ends`,
    at 1: unlike those on a straight line they keep the length that a Gaussian latent typically has. On the line where
    both lie on one through the origin, as far as float32 can tell: there is no one circle then."""
    angles = torch.arccos(torch.nn.functional.cosine_similarity(starts, ends, dim=-1).clamp(-1, 1))[..., None]
    is_line = (angles < 1e-3) | (angles > math.pi - 1e-3)
    sines = torch.where(is_line, 1.0, torch.sin(angles))
    circle = (torch.sin((1 - weights) * angles) * starts + torch.sin(weights * angles) * ends) / sines
    return torch.where(is_line, torch.lerp(starts, ends, weights), circle)


"""The distributions that latents are drawn from, and the principal components that they are moved along."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor
from torch import nn



PRIORS = ("flow", "mixture", "gaussian", "standard")
PATHS = ("lerp", "slerp", "flow")
DEFAULT_PATH = "slerp"  # halfway most shipped models draw sharper on it than on a line; docs/latents.md
NUM_DIRECTIONS = 128  # more than users move along, and few enough for the file
NUM_COMPONENTS = 16  # at most, of the mixture


class LatentPrior(nn.Module):
    """Four distributions over flat latents `(B, Z)`, from the crude to the one that was learned:

    - "standard": N(0, I).
    - "gaussian": `mean` (Z,), and K = min(Z, 128) orthonormal `directions` (K, Z) by falling standard deviation `stds`
      (K,): the principal components, which are also what sliders move along. What they leave of each latent's
      variance is independent, with standard deviation `rest` (Z,).
    - "mixture": the same, but the position along the directions, in standard deviations, is drawn from a mixture of up
      to 16 Gaussians with `mixture_weights` (M,), `mixture_means` and `mixture_stds` (M, K).
    - "flow": a network that turns noise into latents, `LatentFlow`; a model has it if `with_flow`. It works on latents
      less `mean`, over their standard deviation.

    Unfitted, the first three are N(0, I), up to rounding.

    A model may have `detail_dim` latents behind these Z, for what its networks leave of a picture. No distribution
    here knows them: what is drawn has 0 there, the mean of what is left.
    """

    def __init__(self, latent_dim: int, latent_size: int = 1, with_flow: bool = False, detail_dim: int = 0):
        super().__init__()
        num_directions = min(latent_dim, NUM_DIRECTIONS)
        self.latent_dim, self.latent_size, self.detail_dim = latent_dim, latent_size, detail_dim
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("stds", torch.ones(num_directions))
        self.register_buffer("rest", (torch.arange(latent_dim) >= num_directions).float())
        self.register_buffer("mixture_weights", torch.eye(1, NUM_COMPONENTS)[0])
        self.register_buffer("mixture_means", torch.zeros(NUM_COMPONENTS, num_directions))
        self.register_buffer("mixture_stds", torch.ones(NUM_COMPONENTS, num_directions))
        self.flow = LatentFlow(latent_dim, latent_size) if with_flow else None

    @property
    def variances(self) -> torch.Tensor:
        """The variance of each latent, `(Z,)`."""
        return self.stds.square() @ self.directions.square() + self.rest.square()

    @property
    def explained_variance(self) -> torch.Tensor:
        """The share of the latents' variance along each direction, `(K,)`; all of them together at most 1, and all 0
        if nothing varies."""
        return self.stds.square() / self.variances.sum().clamp(min=torch.finfo(self.stds.dtype).tiny)

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """Where latents `(B, Z)`, with details behind them or not, lie along the directions, in standard deviations
        from the mean: `(B, K)`. Along one in which nothing varies that is a distance."""
        stds = torch.where(self.stds > 1e-6 * self.stds.max(), self.stds, 1)
        return (latents[:, : self.latent_dim] - self.mean) @ self.directions.T / stds

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, Z)` less their mean, over their standard deviation: what the flow works on."""
        return (latents - self.mean) / self._scale

    def denormalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """Such latents `(B, Z)` as the model decodes them, `(B, Z + detail_dim)`."""
        return self.with_details(self.mean + normalised * self._scale)

    def with_details(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(B, Z)`, or steps between such, with details of 0 behind them: `(B, Z + detail_dim)`."""
        return F.pad(latents, (0, self.detail_dim))

    @property
    def _scale(self) -> torch.Tensor:
        return self.variances.sqrt().clamp(min=1e-6)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor) -> None:
        """Fits the Gaussian to `latents` (N, Z), at best samples of the posterior of a training set. The mixture is
        then the same Gaussian, until it is fitted to what that one misses.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        if len(latents) < 2:
            raise ValueError(f"A prior needs at least 2 latents to be fitted on; got {len(latents)}.")
        latents = latents.cpu().double()  # not every accelerator has double precision
        covariance = latents.T.cov().reshape(self.latent_dim, self.latent_dim)
        variances, vectors = torch.linalg.eigh(covariance)  # ascending, vectors in columns
        self.mean.copy_(latents.mean(0))
        stds = variances.flip(0).clamp(min=0).sqrt()
        self.set_directions(vectors.flip(1).T, stds, covariance.diagonal())
        self.set_mixture(torch.ones(1), torch.zeros(1, len(self.stds)), torch.ones(1, len(self.stds)))

    @torch.no_grad()
    def set_directions(self, directions: torch.Tensor, stds: torch.Tensor, variances: torch.Tensor) -> None:
        """Stores the first K of orthonormal rows `directions` (..., Z) and of the standard deviations `stds` along
        them, and what they leave of the `variances` (Z,) of the latents. A direction's sign is arbitrary; its largest
        entry is made positive, so that a refit does not flip a slider."""
        count = len(self.stds)
        directions, stds = directions[:count], stds[:count]
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))  # (K, 1)
        self.directions.copy_(directions * largest.sign())
        self.stds.copy_(stds)
        left_over = variances - stds.square() @ directions.square()  # 0 up to rounding where K = Z
        self.rest.copy_(torch.where(left_over > 1e-6 * variances, left_over, 0).sqrt())

    @torch.no_grad()
    def set_mixture(self, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> None:
        """Stores a mixture of M <= 16 Gaussians over `coordinates`: `weights` (M,) that sum to 1, `means` and `stds`
        (M, K)."""
        count = len(weights)
        for buffer, values, empty in (
            (self.mixture_weights, weights, 0.0),
            (self.mixture_means, means, 0.0),
            (self.mixture_stds, stds, 1.0),
        ):
            buffer.fill_(empty)
            buffer[:count] = values

    def sample(
        self,
        num_samples: int,
        kind: str = "gaussian",
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """Draws latents `(num_samples, Z + detail_dim)`, from one generator or from one for each sample. `temperature`
        scales the noise: 0 gives the mean, in a mixture that of one of its Gaussians, and in a flow what it makes of
        the middle of its noise.

        Raises:
            ValueError: If `kind` is none of `PRIORS`, or a flow that this model has not, or `num_samples` is below 1.
        """
        if num_samples < 1:
            raise ValueError(f"{num_samples} samples cannot be drawn; ask for at least 1.")
        if kind not in PRIORS:
            raise ValueError(f"prior={kind!r} is unknown; choose one of {', '.join(PRIORS)}.")
        if kind == "flow" and self.flow is None:
            raise ValueError("prior='flow' was not trained for this model; choose mixture, gaussian or standard.")
        noise = [self._noise(num_samples, size, generator) for size in self.noise_sizes(kind)]
        return self.from_noise([temperature * part for part in noise[:2]] + noise[2:], kind)

    def noise_sizes(self, kind: str) -> list[int]:
        """How many numbers of N(0, 1) each part of the noise has that a latent of this kind is drawn from."""
        position, rest = len(self.stds), self.latent_dim
        return {"standard": [rest], "flow": [rest], "gaussian": [position, rest], "mixture": [position, rest, 1]}[kind]

    def from_noise(self, noise: Sequence[torch.Tensor], kind: str) -> torch.Tensor:
        """Latents `(B, Z + detail_dim)` of noise whose parts are `(B, size)` for each size of `noise_sizes`: the
        position along the directions, what is beside them, and what chooses the Gaussian of a mixture."""
        if kind == "standard":
            return self.with_details(noise[0])
        if kind == "flow":
            return self.denormalised(self.flow.sample(noise[0]))
        position, rest = noise[:2]
        if kind == "mixture":
            chance = torch.special.ndtr(noise[2])  # uniform on (0, 1)
            chosen = (chance > self.mixture_weights.cumsum(0)[:-1]).sum(1)
            position = self.mixture_means[chosen] + position * self.mixture_stds[chosen]
        return self.with_details(self.mean + (position * self.stds) @ self.directions + rest * self.rest)

    @torch.no_grad()
    def path(
        self, starts: torch.Tensor, ends: torch.Tensor, num_points: int, kind: str = DEFAULT_PATH
    ) -> torch.Tensor:
        """Points from `starts` (..., Z + detail_dim) to `ends`, as many, both included: `(..., num_points,
        Z + detail_dim)`. Details go along the straight line on all of them.

        "lerp" goes along the straight line, "slerp" along the great circle around `mean`, with each latent in standard
        deviations; both evenly. "flow" goes along the great circle between the noises that the flow would make the two
        from: every point on the way is then as likely a latent as the two are, and no double exposure of both.

        Raises:
            ValueError: If `kind` is none of `PATHS`, or a flow that this model has not, or fewer than two points are
                asked for.
        """
        if num_points < 2:
            raise ValueError(f"A path needs at least 2 points; got {num_points}.")
        if kind not in PATHS:
            raise ValueError(f"Interpolation {kind!r} is unknown; choose one of {', '.join(PATHS)}.")
        if kind == "flow" and self.flow is None:
            raise ValueError("Interpolation 'flow' needs a flow, and this model has none; choose lerp or slerp.")
        weights = torch.linspace(0, 1, num_points, device=starts.device)[:, None]  # (num_points, 1)
        starts, ends = starts[..., None, :], ends[..., None, :]
        if kind == "lerp":
            return torch.lerp(starts, ends, weights)
        sizes = [self.latent_dim, self.detail_dim]
        (starts, start_details), (ends, end_details) = starts.split(sizes, -1), ends.split(sizes, -1)
        details = torch.lerp(start_details, end_details, weights)
        starts, ends = self.normalised(starts), self.normalised(ends)
        if kind == "slerp":
            return torch.cat([self.mean + slerp(starts, ends, weights) * self._scale, details], -1)
        noise = slerp(self.flow.noise_of(starts), self.flow.noise_of(ends), weights)
        points = self.flow.sample(noise)
        # there and back in steps is not quite the identity: what is missing at either end is added
        missing = torch.lerp(starts - points[..., :1, :], ends - points[..., -1:, :], weights)
        return torch.cat([self.mean + (points + missing) * self._scale, details], -1)

    def _noise(
        self, rows: int, columns: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> torch.Tensor:
        return randn_tensor((rows, columns), generator, self.mean.device, self.mean.dtype)


"""The code that travels with the weights: a model's module and all that it is built from, as one file."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path


RELATIVE_IMPORT = re.compile(r"^from \.(\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)


def standalone_source(module_name: str) -> str:
    """The source of an imported module, after that of every module which it imports relatively: one file that imports
    libraries only. It is one because diffusers follows the imports of a folder's first file no further, and on the Hub
    asks again for each of them."""
    return "\n\n".join(_sources(module_name, set()))


def _sources(module_name: str, seen: set[str]) -> Iterator[str]:
    seen.add(module_name)
    source = Path(sys.modules[module_name].__file__).read_text()
    for name in RELATIVE_IMPORT.findall(source):
        imported = f"{module_name.rpartition('.')[0]}.{name}"
        if imported not in seen:
            yield from _sources(imported, seen)
    yield RELATIVE_IMPORT.sub("", source)


"""The contract that every family keeps: images to flat latents and back, and samples from the prior inside the
model."""

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import CONFIG_NAME, BaseOutput



@dataclass
class EncoderOutput(BaseOutput):
    """What `encode` returns.

    Args:
        latents: The point that stands for each image, `(B, Z)`: without noise, the posterior mean where there is one.
        logvar: Log-variance of the posterior around `latents`, `(B, Z)`, or None in a family without a posterior.
            Details that follow the Z latents are certain.
    """

    latents: torch.Tensor
    logvar: torch.Tensor | None = None


class ImageGenerator(ModelMixin, ConfigMixin):
    """A small image generator with a latent space you can explore by hand.

    Images are `(B, C, H, W)` floats in [-1, 1]; latents are flat, `(B, Z)`. A family's `__init__` signature is its
    configuration, and holds `image_size`, `image_channels`, `latent_dim`, `output_size` and `prior`; it builds
    `self.decoder` and, where there is one, `self.encoder`. The `LatentPrior` is part of the model, so that one
    `config.json` and one safetensors file are all there is, and so is `self.detail` where a family has one, which
    follows latents `(B, Z)` by further ones. `forward` is the training path and returns every tensor that the family's
    objective needs.
    """

    has_encoder: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # only of our own modules is it known that they can travel; a class of a notebook stays where it is
        cls._auto_class = "AutoModel" if cls.__module__.rpartition(".")[0] == __package__ else None

    def __init__(self, latent_dim: int, latent_size: int = 1, prior: str = "standard", detail_dim: int = 0):
        super().__init__()
        self.latent_prior = LatentPrior(latent_dim, latent_size, with_flow=prior == "flow", detail_dim=detail_dim)
        self.detail: Detail | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a model from a folder or a Hub id, in evaluation mode, as diffusers' models do, but only from
        safetensors, and only if all of it is as this class would have written it. No code of the folder is run.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            kwargs: Those of diffusers' `from_pretrained`. The whole model goes to the one device of `device_map`;
                "auto" is the accelerator, if there is one.

        Raises:
            ValueError: If there is no such model, it is of another class, or its configuration or weights are not
                whole, too large or not finite; see `hf_vae.models.loading`. If `device_map` names no single device of
                this machine.
        """
        if not kwargs.pop("use_safetensors", True):
            raise ValueError("use_safetensors=False is not possible: a pickle can hold any program.")
        device_map = kwargs.pop("device_map", None)
        device = None if device_map is None else device_of_map(device_map)
        folder = checked_folder(cls, pretrained_model_name_or_path, **kwargs)
        options = {name: value for name, value in kwargs.items() if name not in (*HUB_OPTIONS, "subfolder")}
        options.setdefault("low_cpu_mem_usage", False)  # it would need accelerate, and spares small networks nothing
        model = super().from_pretrained(folder, use_safetensors=True, **options)
        is_here = Path(os.path.expanduser(pretrained_model_name_or_path)).is_dir()
        # what the next config.json says: a Hub id, or the name of a folder without its path on this machine
        model.register_to_config(
            _name_or_path=folder.resolve().name if is_here else str(pretrained_model_name_or_path)
        )
        return model if device is None else model.to(device)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs: Any) -> None:
        """Saves the model to a folder as diffusers' models do, and beside the weights the code that they need: where
        this package is not installed, diffusers' `AutoModel` loads the folder with `trust_remote_code=True`."""
        save_directory = os.path.expanduser(save_directory)
        if is_main_process and self._auto_class:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.save_source(Path(save_directory))
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            for weights in Path(save_directory).glob("diffusion_pytorch_model*.safetensors"):
                shutil.copymode(Path(save_directory, CONFIG_NAME), weights)  # made for its owner alone by safetensors

    @classmethod
    def save_source(cls, folder: Path) -> None:
        """Writes that code alone, under the name that diffusers writes into `config.json`."""
        (folder / f"{cls.__module__.rpartition('.')[2]}.py").write_text(standalone_source(cls.__module__))

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers', which makes the Hub client warn of an argument that nobody gave."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")
            return super().load_config(*args, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """As diffusers', which would warn of `auto_map`, the line of `config.json` that is for `AutoModel` alone."""
        return super().extract_init_dict({k: v for k, v in config_dict.items() if k != "auto_map"}, **kwargs)

    @property
    def num_latents(self) -> int:
        """How many latents `encode` gives and `decode` takes: `latent_dim`, and what a family has behind these."""
        return self.config.latent_dim + self.latent_prior.detail_dim

    @property
    def output_size(self) -> int:
        """Edge in pixels of the pictures that people get; the network's own `image_size` unless configured."""
        return self.config.output_size or self.config.image_size

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        """Images `(B, C, H, W)` in [-1, 1] to `EncoderOutput`.

        Raises:
            ValueError: If the family has no encoder (`has_encoder`).
        """
        raise ValueError(f"{type(self).__name__} has no encoder: it can sample, but not reconstruct a picture.")

    def decode(self, latents: torch.Tensor) -> DecoderOutput:
        """Latents `(B, Z)` to `DecoderOutput`, whose `sample` is `(B, C, H, W)`, in [-1, 1] up to what the network
        overshoots."""
        return DecoderOutput(sample=self.decoder(latents.to(self.dtype)))

    @torch.no_grad()
    def sample(
        self,
        num_images: int,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
    ) -> torch.Tensor:
        """Draws images `(num_images, C, H, W)` in [-1, 1].

        Args:
            num_images: How many.
            generator: Source of the latents' noise; the global one if None.
            temperature: Scale of that noise. Below 1 samples are more typical and less varied.
            prior: `"flow"`, `"mixture"` or `"gaussian"` (fitted on the training set) or `"standard"` (N(0, I));
                `config.prior` if None.

        Raises:
            ValueError: If `prior` is unknown, or a flow that the model has not.
        """
        latents = self.latent_prior.sample(num_images, prior or self.config.prior, generator, temperature)
        return self.decode(latents).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Encodes images `(B, C, H, W)` in [-1, 1] without noise, and decodes them again.

        Raises:
            ValueError: If the family has no encoder, or `images` are something else.
        """
        return self.decode(self._latents_of(images)).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def interpolate(
        self, start: torch.Tensor, end: torch.Tensor, num_images: int = 8, kind: str = DEFAULT_PATH
    ) -> torch.Tensor:
        """Images `(num_images, C, H, W)` in [-1, 1], evenly spaced on a path of `kind` through latent space, see
        `LatentPrior.path`, from `start` to `end`, which are images `(C, H, W)` in [-1, 1]; the reconstructions of both
        are included.

        Raises:
            ValueError: If the family has no encoder, `kind` is not a path that the model has, fewer than two images
                are asked for, or `start` and `end` are something else.
        """
        if num_images < 2:
            raise ValueError(f"A path needs at least 2 images; got {num_images}.")
        latents = torch.cat([self._latents_of(image, 3) for image in (start, end)])  # (2, Z)
        path = self.latent_prior.path(latents[0], latents[1], num_images, kind)  # (num_images, Z)
        return self.decode(path).sample.float().clamp(-1, 1)

    def _latents_of(self, images: torch.Tensor, ndim: int = 4) -> torch.Tensor:
        """Images `(B, C, H, W)` in [-1, 1], or with `ndim` 3 one `(C, H, W)`, to latents `(B, Z)`. A network would
        take bytes, too, and make noise of them."""
        size = (self.config.image_channels, self.config.image_size, self.config.image_size)
        is_float = isinstance(images, torch.Tensor) and images.is_floating_point()
        if self.has_encoder and not (is_float and images.ndim == ndim and images.shape[-3:] == size):
            of_shape = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images)
            raise ValueError(
                f"A float tensor ({'B, ' if ndim == 4 else ''}{', '.join(map(str, size))}) in [-1, 1] is needed; got "
                f"{of_shape}. hf_vae.ImagePipeline takes PIL images, paths and arrays of any size."
            )
        return self.encode(images if ndim == 4 else images[None]).latents


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


def grid_rule(image_size: int, latent_size: int, latent_dim: int) -> tuple[int, int]:
    """Splits the way from the image to a grid of `latent_size` x `latent_size` cells, and returns `(stages,
    channels)`: how often the size is halved, and how many of the `latent_dim` latents a cell holds.

    Raises:
        ValueError: If halving `image_size` never gives such a grid, or the latents do not fill it evenly; the message
            names what does.
    """
    bottom, stages = size_rule(image_size)
    sizes = [bottom * 2**power for power in range(stages)]
    if latent_size not in sizes:
        raise ValueError(
            f"latent_size={latent_size} does not suit image_size={image_size}, which halves to "
            f"{', '.join(map(str, sizes))}; choose one of these, or 1 for latents without a place."
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
        ValueError: If `block` is unknown, or a residual block's width is no multiple of its 8 normalisation groups.
    """
    if block not in BLOCKS:
        raise ValueError(f"block={block!r} is unknown; choose one of {', '.join(BLOCKS)}.")
    widths = [min(width * 2**stage, max_width) for stage in range(stages)]
    if block == "residual" and any(channels % GROUPS for channels in widths):
        raise ValueError(f"width={width} and max_width={max_width} must be multiples of {GROUPS} for residual blocks.")
    return widths


def activations(trunk: nn.Sequential, images: torch.Tensor) -> list[torch.Tensor]:
    """The values after each activation of a discriminator, in their order."""
    found, hidden = [], images
    for layer in trunk:
        hidden = layer(hidden)
        if isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.SELU):
            found.append(hidden)
    return found


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
        self.shortcut: nn.Sequential | None = None
        if latent_size > 1:
            stages, latent_channels = grid_rule(image_size, latent_size, latent_dim)
        widths = stage_widths(width, max_width, stages, block)
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
        self.trunk = nn.Sequential(*layers)
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
    latents over the coarsest stage; otherwise they are a grid of that many cells a side, as in `Encoder`, and with a
    `shortcut` what is drawn is added to a linear map of each cell's latents to its pixels.
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
        self.shortcut: nn.Sequential | None = None
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
        if block == "residual":
            layers = [ResidualBlock(widths[-1]) for _ in range(2 if latent_size > 1 else 1)]
            for coarse, fine in coarse_to_fine:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1), ResidualBlock(fine)]
            to_pixels = nn.Conv2d(widths[0], 4 * image_channels, 3, padding=1)
            with torch.no_grad():
                to_pixels.weight.copy_(to_pixels.weight[::4].repeat_interleave(4, dim=0))
                to_pixels.bias.zero_()
            layers += [nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), to_pixels, nn.PixelShuffle(2)]
        else:
            layers = [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
            for coarse, fine in coarse_to_fine:
                layers += [nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1, bias=False)]
                layers += [nn.BatchNorm2d(fine), nn.ReLU(inplace=True)]
            layers += [nn.ConvTranspose2d(widths[0], image_channels, 4, stride=2, padding=1), nn.Tanh()]
        self.trunk = nn.Sequential(*layers)

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


"""Networks that are written down layer by layer: what a recipe of a published system lists."""

import math
from typing import Any

import torch
from torch import nn



MAX_VALUES = 2**26  # of one image, after one layer: what bounds the memory that few weights can ask for


class ToImageRange(nn.Module):
    """Values in [0, 1], as a sigmoid gives them, to images in [-1, 1]."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values - 1


class ListedEncoder(nn.Module):
    """Images to `num_features` flat features. The line `latents` is a dense layer that gives as many.

    Raises:
        ValueError: If the layers give another number of features.
    """

    def __init__(self, lines: tuple[str, ...], image_size: int, image_channels: int, num_features: int):
        super().__init__()
        lines = tuple(f"dense {num_features}" if line == "latents" else line for line in lines)
        self.trunk, shape = build_layers(lines, (image_channels, image_size, image_size))
        if math.prod(shape) != num_features:
            raise ValueError(
                f"encoder_layers give {math.prod(shape)} numbers for an image where {num_features} are needed; end "
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
    """Images to logits `(B,)`; what it sees on the way are the values after each activation.

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
    """The encoder that is listed, or else an `Encoder`, whose further arguments `shape` are."""
    if lines:
        return ListedEncoder(lines, image_size, image_channels, outputs * latent_dim)
    return Encoder(image_size, image_channels, latent_dim, *shape, outputs)


def make_decoder(
    lines: tuple[str, ...] | None, image_size: int, image_channels: int, latent_dim: int, *shape: Any
) -> nn.Module:
    """The decoder that is listed, or else a `Decoder`, whose further arguments `shape` are."""
    if lines:
        return ListedDecoder(lines, image_size, image_channels, latent_dim)
    return Decoder(image_size, image_channels, latent_dim, *shape)


def build_layers(lines: tuple[str, ...], shape: tuple[int, ...]) -> tuple[nn.Sequential, tuple[int, ...]]:
    """The layers that `lines` name, one each, for inputs of `shape`, which is (C, H, W) or (N,); and the shape of what
    comes out.

    - `conv CHANNELS KERNEL STRIDE` and `convt ...`, a convolution and a transposed one, padded so that the size is
      divided or multiplied by the stride; `PADDING` may follow, and `nobias`.
    - `dense NUMBERS`, of all values, in whatever shape; `nobias` may follow.
    - `view CHANNELS SIZE`, flat values as a picture; `flatten`, the reverse.
    - `batchnorm`, `relu`, `leaky_relu SLOPE`, `selu`, `tanh`, `dropout SHARE`, `dropout_channels SHARE`.
    - `sigmoid`, whose values in [0, 1] become images in [-1, 1].

    Raises:
        ValueError: If a line names no such layer, or does not suit what comes before it.
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
            raise ValueError(f"{math.prod(shape)} values are no {channels}x{size}x{size}")
        return [nn.Unflatten(1, (channels, size, size))], (channels, size, size)
    if kind == "flatten":
        return [nn.Flatten()], (math.prod(shape),)
    if kind == "batchnorm":
        return [nn.BatchNorm2d(shape[0]) if len(shape) > 1 else nn.BatchNorm1d(shape[0])], shape
    simple = {
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


"""The variational autoencoder."""

from typing import Literal, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput



# Standard deviations from 0.0067 to 7.4: never so wide that an overflow in half precision hides it.
LOGVAR_RANGE = (-10.0, 4.0)


class VAEOutput(NamedTuple):
    """What `VAE.forward` returns: `reconstructions` (B, C, H, W), the posterior N(`mean`, exp(`logvar`)) and the draw
    of it that they were decoded from, `latents`, all `(B, Z)`, and `samples` (N, C, H, W) of other latents where some
    were asked for."""

    reconstructions: torch.Tensor
    mean: torch.Tensor
    logvar: torch.Tensor
    latents: torch.Tensor
    samples: torch.Tensor | None = None


class VAE(ImageGenerator):
    """A variational autoencoder (Kingma and Welling 2014): an encoder gives each picture a Gaussian in latent space, a
    decoder draws the picture again from a sample of it. It reconstructs, interpolates and samples; what it draws is
    smoother than a photograph, because it paints the average of all pictures that fit.

    Args:
        image_size: Edge of the square images that the network works at, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid of cells that the latents lie on, each seeing its own part of the picture;
            1 for latents without a place, each of which stands for all of it.
        width: Channels at the finest scale; doubled at each coarser one.
        max_width: Channels are never more than this.
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (4x4 strided convolutions and
            BatchNorm).
        shortcut: Whether a cell of the grid also gets its latents by a linear map of its own pixels, and these by one
            of its latents, beside what the networks add. Plain blocks, and latents without a place, have none.
        detail_dim: Number of further latents, behind the Z that the networks know, for what these leave of each cell
            of a picture (`Detail`): fitted once they are trained, and 0 in samples. With them `encode` gives, and
            `decode` takes, `(B, Z + detail_dim)`.
        output_size: Edge of the pictures that people get, in pixels; None for image_size.
        prior: What samples are drawn from, fitted after training: "flow" (a network that learns the latents),
            "mixture" (of Gaussians) or "gaussian"; or "standard" (N(0, I)).
        encoder_layers: The encoder layer by layer, as a recipe lists it, see `hf_vae.models.listed_layers`; width,
            max_width, block, shortcut and latent_size then say nothing about it.
        decoder_layers: The same for the decoder.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        latent_dim: int = 1024,
        latent_size: int = 8,
        width: int = 32,
        max_width: int = 192,
        block: Literal["residual", "plain"] = "residual",
        shortcut: bool = True,
        detail_dim: int = 0,
        output_size: int | None = None,
        prior: Literal["flow", "mixture", "gaussian", "standard"] = "flow",
        encoder_layers: tuple[str, ...] | None = None,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, latent_size, prior, detail_dim)
        sizes = (image_size, image_channels, latent_dim, latent_size, width, max_width, block, shortcut)
        self.encoder = make_encoder(encoder_layers, *sizes, outputs=2)
        self.decoder = make_decoder(decoder_layers, *sizes)
        if detail_dim:
            self.detail = Detail(image_size, image_channels, latent_size, detail_dim)

    def encode(self, images: torch.Tensor) -> EncoderOutput:
        posterior = self.posterior(images)
        if self.detail is None:
            return posterior
        details = self.detail.encode(self.left_of(images, posterior.latents).to(self.dtype)).float()
        return EncoderOutput(latents=torch.cat([posterior.latents, details], 1), logvar=posterior.logvar)

    def decode(self, latents: torch.Tensor) -> DecoderOutput:
        sizes = [self.config.latent_dim, self.config.detail_dim]
        drawn, details = latents.to(self.dtype).split(sizes, 1)
        images = self.decoder(drawn)
        return DecoderOutput(sample=images if self.detail is None else images + self.detail.decode(details))

    def posterior(self, images: torch.Tensor) -> EncoderOutput:
        """What the encoder alone makes of images `(B, C, H, W)`: latents `(B, Z)` without details."""
        mean, logvar = self.encoder(images.to(self.dtype)).float().chunk(2, dim=1)  # (B, Z) each
        return EncoderOutput(latents=mean, logvar=logvar.clamp(*LOGVAR_RANGE))

    def left_of(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """What images `(B, C, H, W)` are more than what the decoder alone draws from `latents` (B, Z)."""
        return images - self.decoder(latents.to(self.dtype))

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> VAEOutput:
        """Reconstructs `images` (B, C, H, W), without details, from the draw of their posterior that `noise` (B, Z) of
        N(0, I) stands for; from the posterior's mean without it."""
        posterior = self.posterior(images)
        latents = posterior.latents
        if noise is not None:
            latents = latents + torch.exp(0.5 * posterior.logvar) * noise
        reconstructions = self.decoder(latents.to(self.dtype))
        return VAEOutput(reconstructions, posterior.latents, posterior.logvar, latents)
