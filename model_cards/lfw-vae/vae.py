"""Principal components: of any covariance, and those of a model's latents."""

import torch
from torch import nn


NUM_DIRECTIONS = 128  # more than users move along, and few enough for the file
MIN_LATENTS = 2  # a covariance needs as many


def principal_components(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The eigenvalues and eigenvectors of a covariance `(Z, Z)`, in double precision on the CPU: the variances `(Z,)`,
    falling and at least 0, and the orthonormal directions `(Z, Z)`, one in each row. The sign of an eigenvector is
    arbitrary. Its largest entry is made positive here, so that a refit does not flip a slider."""
    variances, vectors = torch.linalg.eigh(covariance.cpu().double())  # ascending, one vector in each column
    directions = vectors.flip(1).T
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))  # (Z, 1)
    return variances.flip(0).clamp(min=0), directions * largest.sign()


class PrincipalComponents(nn.Module):
    """The mean and the principal components of flat latents `(N, Z)`: what sliders move along, and what every fitted
    prior starts from.

    There are `mean` (Z,), and K orthonormal `directions` (K, Z), sorted by falling standard deviation `stds` (K,). The
    variance of each latent that these do not explain is independent, with the standard deviation `rest` (Z,). Before
    they are fitted, they describe N(0, I).

    Args:
        latent_dim: Number of latents Z.
        num_directions: The most directions to keep; K is the smaller of the two.

    Raises:
        ValueError: If `num_directions` is below 1.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    stds: torch.Tensor
    rest: torch.Tensor

    def __init__(self, latent_dim: int, num_directions: int = NUM_DIRECTIONS):
        super().__init__()
        if num_directions < 1:
            raise ValueError(f"num_directions={num_directions} is not possible; it must be at least 1.")
        num_directions = min(latent_dim, num_directions)
        self.latent_dim = latent_dim
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("stds", torch.ones(num_directions))
        self.register_buffer("rest", (torch.arange(latent_dim) >= num_directions).float())

    @property
    def variances(self) -> torch.Tensor:
        """The variance of each latent, `(Z,)`."""
        return self.stds.square() @ self.directions.square() + self.rest.square()

    @property
    def explained_variance(self) -> torch.Tensor:
        """The share of the latents' variance along each direction, `(K,)`. The shares sum to at most 1; all are 0 if
        nothing varies."""
        return self.stds.square() / self.variances.sum().clamp(min=torch.finfo(self.stds.dtype).tiny)

    def coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """The positions of latents `(B, Z)` along the directions, in standard deviations from the mean: `(B, K)`.
        Along a direction in which nothing varies, the position is the plain distance."""
        stds = torch.where(self.stds > 1e-6 * self.stds.max(), self.stds, 1)
        return (latents - self.mean) @ self.directions.T / stds

    def normalised(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `(..., Z)` minus their mean, divided by their standard deviations."""
        return (latents - self.mean) / self._scale

    def denormalised(self, normalised: torch.Tensor) -> torch.Tensor:
        """The latents `(..., Z)` of normalised ones: the inverse of `normalised`."""
        return self.mean + normalised * self._scale

    @property
    def _scale(self) -> torch.Tensor:
        return self.variances.sqrt().clamp(min=1e-6)

    @torch.no_grad()
    def fit(self, latents: torch.Tensor) -> None:
        """Fits mean and components to `latents` (N, Z), ideally samples of the posterior of a training set.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        if len(latents) < MIN_LATENTS:
            raise ValueError(f"A prior needs at least {MIN_LATENTS} latents to be fitted on; got {len(latents)}.")
        latents = latents.cpu().double()  # not every accelerator has double precision
        covariance = latents.T.cov().reshape(self.latent_dim, self.latent_dim)
        variances, directions = principal_components(covariance)
        self.mean.copy_(latents.mean(0))
        self.set_directions(directions, variances.sqrt(), covariance.diagonal())

    @torch.no_grad()
    def set_directions(self, directions: torch.Tensor, stds: torch.Tensor, variances: torch.Tensor) -> None:
        """Stores the first K of orthonormal rows `directions` (..., Z), the standard deviations `stds` along them, and
        what they leave unexplained of the `variances` (Z,) of the latents."""
        count = len(self.stds)
        directions, stds = directions[:count], stds[:count]
        self.directions.copy_(directions)
        self.stds.copy_(stds)
        unexplained = variances - stds.square() @ directions.square()  # 0 up to rounding where K = Z
        self.rest.copy_(torch.where(unexplained > 1e-6 * variances, unexplained, 0).sqrt())


"""Residual latents: what the networks miss of an image, cell by cell."""

import torch
import torch.nn.functional as F
from torch import nn



class Detail(nn.Module):
    """The principal components of the residual, an image minus its reconstruction by a trained model, within each cell
    of the latents' grid. A linear map of a cell's pixels gives its `num_components` numbers, in standard deviations,
    and another leads back.

    Args:
        image_size: Edge of the images, in pixels.
        image_channels: Their channels.
        latent_size: Edge of the grid of cells.
        detail_dim: Number of residual latents D, of all cells together.

    Raises:
        ValueError: If there is no grid, D does not fill it evenly, or a cell has fewer values than numbers.
    """

    components: torch.Tensor
    stds: torch.Tensor

    def __init__(self, image_size: int, image_channels: int, latent_size: int, detail_dim: int):
        super().__init__()
        self.cell, self.latent_size, self.detail_dim = image_size // latent_size, latent_size, detail_dim
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

    def encode(self, residuals: torch.Tensor) -> torch.Tensor:
        """The residuals of images, `(B, C, H, W)`, to residual latents `(B, D)`."""
        maps = self.components / self.stds[:, None]
        return F.conv2d(F.pixel_unshuffle(residuals, self.cell), maps[..., None, None]).flatten(1)

    def decode(self, details: torch.Tensor) -> torch.Tensor:
        """Residual latents `(B, D)` to what they add to images, `(B, C, H, W)`."""
        grids = details.unflatten(1, (-1, self.latent_size, self.latent_size))
        maps = (self.components * self.stds[:, None]).T
        return F.pixel_shuffle(F.conv2d(grids, maps[..., None, None]), self.cell)

    def faded(self, details: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
        """Residual latents `(B, D)` of images that have changed since by `changes` (B, C, H, W), so that no ghost of
        what was there before stays. In each cell they are multiplied by `exp(-(c / s)^2)`, where c is the root mean
        square of the cell's changes, and s that of the residuals which this was fitted to."""
        squares = F.avg_pool2d(changes.square().mean(1, keepdim=True), self.cell)  # (B, 1, S, S)
        residuals = self.stds.square().sum() / self.components.shape[1]
        grids = details.unflatten(1, (-1, self.latent_size, self.latent_size))
        return (grids * torch.exp(-squares / residuals)).flatten(1)

    @torch.no_grad()
    def fit(self, covariance: torch.Tensor) -> None:
        """Takes the components from the `covariance` (C * cell^2, C * cell^2) of a cell's residuals."""
        variances, directions = principal_components(covariance)
        count = len(self.stds)
        self.components.copy_(directions[:count])
        self.stds.copy_(variances[:count].clamp(min=1e-12).sqrt())


"""The versions of the format that models are saved in, and what changed from each to the next. Weights that were
published in an earlier version load for ever: tests/models/published has a model of each.

To change names or shapes of weights, or what an argument that is left out means: raise `FORMAT_VERSION`, add what
changed to `CHANGES` or to `upgraded_config`, and keep a small model of the version before in tests/models/published.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short_repr
from typing import Any

import torch


FORMAT_VERSION = 8
VERSION_KEY = "format_version"  # in config.json; versions 1 to 4 did not write it


class LoadError(ValueError, OSError):
    """A model that cannot be loaded. diffusers raises an `OSError` for many of the reasons, so this is one too."""


@dataclass(frozen=True)
class FormatChange:
    """What changed in the weights from one version to the next.

    Args:
        renamed: New names of weights, by their old ones.
        added: Weights that are new. A model of an earlier version keeps the values that they start with.
        dropped: The beginning of names that the next version cannot use.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


MIXTURE_NAMES = ("weights", "means", "stds")
CHANGES: dict[int, FormatChange] = {
    # 2026-11-20: the prior was a Gaussian, with as many directions as latents.
    1: FormatChange(added=("latent_prior.rest", *(f"latent_prior.mixture_{name}" for name in MIXTURE_NAMES))),
    # 2026-11-21: a flow. Its network had two meanings under the same names; see `upgraded_config`.
    2: FormatChange(dropped=("latent_prior.flow.",)),
    # 2026-11-21: a flow that is calibrated, and starts from N(0, I).
    3: FormatChange(added=tuple(f"latent_prior.flow.{name}" for name in ("directions", "variances", "rest"))),
    # 2026-11-25: a flow that starts from a Gaussian; residual latents.
    4: FormatChange(
        renamed={f"latent_prior.mixture_{name}": f"latent_prior.mixture.{name}" for name in MIXTURE_NAMES}
    ),
    # 2026-11-26: the prior with a code, in weights of its own; guidance.
    5: FormatChange(),
    # 2026-11-27: the statistics of the latents in the configuration.
    6: FormatChange(),
    # 2026-11-28: a mixture of Gaussians that the code is drawn from.
    7: FormatChange(),
}
# The arguments that versions up to this one did not have, or did not write yet, and the values that they stood for.
FIRST_VALUES: dict[int, dict[str, Any]] = {
    4: {
        "shortcut": False,
        "detail_dim": 0,
        "num_directions": 128,
        "num_gaussians": 16,
        "flow_width": 48,
        "flow_mlp_width": 512,
        "flow_depth": 2,
        "flow_directions": 512,
    },
    5: {"guidance": None},
    7: {"code_gaussians": 1},
}


def refuse_newer_format(config: dict[str, Any], place: Any) -> None:
    """Raises a `LoadError` if the configuration `config` of the model at `place` has a format that is unknown."""
    version = config.get(VERSION_KEY, 1)
    if type(version) is not int or version < 1:
        raise LoadError(
            f"{place}: {VERSION_KEY}={short_repr(version)} is not possible; it must be a whole number from 1."
        )
    if version > FORMAT_VERSION:
        raise LoadError(
            f"{place} has {VERSION_KEY} {version}, and this version of hf_vae reads versions up to {FORMAT_VERSION}: "
            "upgrade hf_vae to load the model."
        )


def upgraded_config(config: dict[str, Any], arguments: Collection[str]) -> dict[str, Any]:
    """The same configuration, with the values of those of the class's `arguments` that its version did not know.

    Raises:
        LoadError: If the version is newer than this code.
    """
    refuse_newer_format(config, "The configuration")
    version = config.get(VERSION_KEY, 4)
    values = {name: value for last, first in FIRST_VALUES.items() if version <= last for name, value in first.items()}
    if VERSION_KEY not in config and "decoder_layers" not in config and "latent_dim" in config:  # version 1
        values |= {"latent_size": 1, "num_directions": config["latent_dim"]}
    upgraded = {name: value for name, value in values.items() if name in arguments} | config
    return {name: value for name, value in upgraded.items() if name != VERSION_KEY}


def version_of(config: dict[str, Any], names: Collection[str]) -> int:
    """The version of a model with this configuration and weights of these `names`. Before version 5 it follows from
    the names."""
    if VERSION_KEY in config:
        return config[VERSION_KEY]
    flow = {name for name in names if name.startswith("latent_prior.flow.")}
    if not any(name == "latent_prior.rest" or name.startswith("latent_prior.mixture") for name in names):
        return 1
    if flow and "latent_prior.flow.mean" not in names:
        return 2
    if flow and "latent_prior.flow.directions" not in names:
        return 3
    return 4


def refuse_early_flow(version: int, prior: Any, place: Any) -> None:
    """Raises a `LoadError` if a model of a version would draw samples from a flow whose meaning is not known."""
    if version == 2 and prior == "flow":
        raise LoadError(
            f"{place} has a flow of 21 November 2026, whose weights had two meanings that cannot be told apart: pass "
            "prior='mixture' to load the model without it, or train the model again."
        )


def upgraded_names(names: Iterable[str], version: int) -> dict[str, str]:
    """The names of weights today, by their names in a `version`. Those that are not used any more are left out."""
    found = {name: name for name in names}
    for change in (CHANGES[number] for number in range(version, FORMAT_VERSION)):
        found = {
            old: change.renamed.get(new, new)
            for old, new in found.items()
            if not new.startswith(change.dropped or "\0")
        }
    return found


def added_names(version: int) -> set[str]:
    """The names today of the weights that a `version` did not have yet."""
    added: list[str] = []
    for change in (CHANGES[number] for number in range(version, FORMAT_VERSION)):
        added = [change.renamed.get(name, name) for name in [*added, *change.added]]
    return set(added)


def upgraded_weights(
    weights: Mapping[str, torch.Tensor], version: int, start: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """The weights of a `version` under the names that they have today. Those that the version did not have yet take
    the values of a new model, `start`."""
    names, added = upgraded_names(weights, version), added_names(version) & start.keys()
    if not added and all(names.get(name) == name for name in weights):
        return weights
    return {name: start[name] for name in sorted(added)} | {new: weights[old] for old, new in names.items()}


"""Reads a model folder from an untrusted source. Its content is compared with what the class would write, before
memory is allocated."""

import inspect
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
MAX_INDEX_BYTES = 2**20
MAX_PARTS = 256
PART_NAME = re.compile(r"diffusion_pytorch_model(\.\w+)?-\d{5}-of-\d{5}\.safetensors")  # as diffusers calls them
MAX_PARAMETERS = 2**28  # 1 GiB in single precision; the largest recipe has half
MAX_OUTPUT_SIZE = 1024
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
LATENT_STATISTICS = ("latents_mean", "latents_std", "scaling_factor")  # in config.json, for diffusers; computed here
NOT_ARGUMENTS = {"_class_name", "_diffusers_version", "_name_or_path", "auto_map", VERSION_KEY, *LATENT_STATISTICS}
FLOATS = {"F16", "BF16", "F32", "F64"}  # as safetensors calls them
AUTOMATIC_DEVICES = ("auto", "balanced", "balanced_low_0", "sequential")  # as accelerate calls its ways to split
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # the start of what git keeps in place of a large file
CHECKPOINT_NAME = re.compile(r"(\.writing-)?checkpoint-\d+")
RUN_FILES = ("log.jsonl", "train_config.json")  # that a training writes before it writes a model
OTHER_WEIGHTS = {".bin", ".ckpt", ".h5", ".msgpack", ".pkl", ".pt", ".pth"}


def checked_folder(model_class: type, path: str | os.PathLike, variant: str | None = None, **options: Any) -> Path:
    """The folder of the model at `path`, a folder or a Hub id, after a check that its configuration and weights are
    what `model_class`, or an earlier version of it, writes. `options` are those of diffusers' `from_pretrained`.

    Raises:
        LoadError: If anything in it is missing, unexpected, malformed, too large, not finite, or outside the folder.
    """
    weights, index = SAFETENSORS_WEIGHTS_NAME, index_name(variant)
    if variant:
        weights = weights.replace(".safetensors", f".{variant}.safetensors")
    parts = weights.replace(".safetensors", "-*-of-*.safetensors")
    folder = find_folder(path, [CONFIG_NAME, weights, index, parts], **options)
    config = read_config(folder)
    if config["_class_name"] != model_class.__name__:
        raise LoadError(
            f"{path} is a {config['_class_name']}, not a {model_class.__name__}: AutoGenerator picks the class."
        )
    arguments = _checked_arguments(model_class, config, options, folder / CONFIG_NAME)
    expected = _state_without_memory(model_class, arguments, folder / CONFIG_NAME)
    if (folder / index).exists():  # as in diffusers, before weights in one file
        files, places = _files_of_index(folder, index)
    else:
        files, places = [_own_file(folder, weights)], None
    _check_weights(files, places, expected, config, arguments.get("prior"))
    return folder


def index_name(variant: str | None) -> str:
    """The name of the file that says where each weight is, if they are split over several files."""
    return SAFE_WEIGHTS_INDEX_NAME.replace(".json", f".{variant}.json") if variant else SAFE_WEIGHTS_INDEX_NAME


def find_folder(path: str | os.PathLike, names: list[str], subfolder: str | None = None, **options: Any) -> Path:
    """The folder of the model at `path`: a folder, where a leading `~` is the home folder, or a Hub id, whose files
    `names` are downloaded.

    Raises:
        LoadError: If there is neither, or it has no model; the message says what it has instead.
    """
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        folder = folder / (subfolder or "")
        if not (folder / CONFIG_NAME).is_file():
            raise LoadError(_why_it_is_missing(folder, CONFIG_NAME))
        return folder
    if folder.exists():
        raise LoadError(f"{path} is a file, not a model folder; pass the folder that has {CONFIG_NAME}.")
    hub_options = {name: options[name] for name in HUB_OPTIONS if name in options}
    patterns = [f"{subfolder}/{name}" if subfolder else name for name in names]
    try:
        folder = Path(snapshot_download(str(path), allow_patterns=patterns, **hub_options)) / (subfolder or "")
    except HFValidationError as error:
        raise LoadError(
            f"{path} is neither a model folder here nor the id of a model on the Hub, such as me/my-vae."
        ) from error
    except OSError as error:
        raise LoadError(f"{path} is neither a model folder here nor a model on the Hub. {error}") from error
    if not (folder / CONFIG_NAME).is_file():
        place = f"{path}, folder {subfolder}," if subfolder else path
        raise LoadError(f"{place} on the Hub has no {CONFIG_NAME}: it is not a model of hf_vae.")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json` in `folder`. It names a class, which need not be one of this package.

    Raises:
        LoadError: If there is none, it is not the JSON of a configuration, or its format is newer than this code.
    """
    file = _own_file(folder, CONFIG_NAME)
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise LoadError(f"{file} has more than {MAX_CONFIG_BYTES:,} bytes: it is not the configuration of a model.")
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise LoadError(f"{file} has no _class_name, the class of the model: save the model with save_pretrained.")
    refuse_newer_format(config, file)
    return config


def refuse_output_size(output_size: int | None) -> None:
    """Raises a `LoadError` for images that may need more memory than there is."""
    if output_size is not None and not 1 <= output_size <= MAX_OUTPUT_SIZE:
        raise LoadError(
            f"output_size={short_repr(output_size)} is not possible; choose one from 1 to {MAX_OUTPUT_SIZE}."
        )


def refuse_lfs_pointer(file: Path, content: str) -> None:
    """Raises a `LoadError` if `file` is what git keeps in place of a large file, if its `content` was not fetched."""
    if is_lfs_pointer(file):
        raise LoadError(
            f"{file} is a Git LFS pointer, not the {content}: run `git lfs pull` in its repository, or download the "
            "file itself."
        )


def is_lfs_pointer(file: Path) -> bool:
    """Whether `file` is what git keeps in place of a large file. A file that cannot be opened is not: its reader will
    raise the error."""
    try:
        with open(file, "rb") as start:
            return start.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def device_of_map(device_map: Any) -> torch.device:
    """The device that diffusers' argument `device_map` names. The networks are too small to be split over several
    devices. "auto" and the other automatic ways mean the accelerator if there is one, and else the CPU.

    Raises:
        LoadError: If it names several devices, or one that cannot be used here.
    """
    device = device_map[""] if isinstance(device_map, dict) and list(device_map) == [""] else device_map
    if isinstance(device, str) and device in AUTOMATIC_DEVICES:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device  # which fails where there is no such device
    except (RuntimeError, TypeError, AssertionError) as error:
        raise LoadError(
            f"device_map={short_repr(device_map)} is not possible: a model is on one device, which must exist here. "
            f"Leave device_map out and use .to(device). {error}"
        ) from error


def _own_file(folder: Path, name: str) -> Path:
    """A file of `folder` that lies in it, or where the Hub's cache keeps what its folders link to."""
    file = folder / name
    if not file.is_file():  # neither is a pipe, which would be waited for
        raise LoadError(_why_it_is_missing(folder, name))
    places = [folder, *(parent.parent / "blobs" for parent in folder.absolute().parents if parent.name == "snapshots")]
    if not any(file.resolve().is_relative_to(place.resolve()) for place in places):
        raise LoadError(f"{file} is a link to a file outside of its folder; put the file itself there.")
    refuse_lfs_pointer(file, "configuration" if name == CONFIG_NAME else "weights")
    return file


def _why_it_is_missing(folder: Path, name: str) -> str:
    """What a folder without the file `name` has instead of a model, and the way out."""
    if not folder.is_dir():
        return f"{folder} does not exist."
    if CHECKPOINT_NAME.fullmatch(folder.absolute().name) or (folder / "manifest.json").is_file():
        run = folder.absolute().parent if folder == Path() else folder.parent
        finished = (run / CONFIG_NAME).is_file()
        way_out = f"The finished model is in {run}." if finished else f"{run} has no finished model. {_to_finish(run)}"
        return f"{folder} is a checkpoint to resume from, not a model. {way_out}"
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        return f"{folder} is empty; a model folder has {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME}."
    if CONFIG_NAME not in found:
        if any(CHECKPOINT_NAME.fullmatch(other) or other in RUN_FILES for other in found):
            return f"{folder} is a run that is not finished. It has no model yet. {_to_finish(folder)}"
        if models := [str(folder / other) for other in found if (folder / other / CONFIG_NAME).is_file()]:
            return f"{folder} is not a model, but has {len(models)}; pass one of them: {_first(models)}."
    missing = f"Error no file named {name} found in directory {folder}."  # as diffusers says it
    if others := [other for other in found if Path(other).suffix in OTHER_WEIGHTS]:
        return (
            f"{missing} Only safetensors are read, and {_first(others)} is in another format, which can hold any "
            "program. Ask the author of the weights for safetensors."
        )
    stem, suffix = SAFETENSORS_WEIGHTS_NAME.split(".")
    if variants := [other.split(".")[1] for other in found if re.fullmatch(rf"{stem}\.\w+\.{suffix}", other)]:
        return f"{missing} It has the variants {_first(variants)}: pass variant={variants[0]!r}."
    return f"{missing} A model folder has what save_pretrained writes: {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME}."


def _to_finish(run: Path) -> str:
    return (
        f"To finish the run, start it with the same settings and --output_dir {run} --resume_from_checkpoint latest."
    )


def _first(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _checked_arguments(
    model_class: type, config: dict[str, Any], options: dict[str, Any], file: Path
) -> dict[str, Any]:
    """The arguments of the model's class, from a configuration of any version, and from the caller's `options`, which
    come first."""
    parameters = dict(inspect.signature(model_class).parameters)
    config = upgraded_config(config, parameters)
    if unknown := sorted(set(config) - set(parameters) - NOT_ARGUMENTS):
        raise LoadError(
            f"{file} has {', '.join(map(short_repr, unknown))}, which a {model_class.__name__} does not know. It was "
            "written by another version, or by hand."
        )
    arguments = {name: value for name, value in {**config, **options}.items() if name in parameters}
    for name, value in arguments.items():
        if not _is_of_kind(value, parameters[name].annotation):
            kind = inspect.formatannotation(parameters[name].annotation)
            raise LoadError(f"{file}: {name}={short_repr(value)} is not possible; it must be {kind}.")
    refuse_output_size(arguments.get("output_size"))
    return arguments


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value from JSON suits an annotation."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of_kind(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is_of_kind(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is (NoneType if kind is None else kind)  # True is not a number


def _state_without_memory(model_class: type, arguments: dict[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """The names and shapes of a model's weights, on torch's meta device, which holds no values."""
    try:
        with torch.device("meta"):
            state = model_class(**arguments).state_dict()
    except Exception as error:  # of any kind: sizes that overflow, are negative, or do not fit each other
        raise LoadError(f"{file} describes a model that cannot be built: {error}") from error
    if (count := sum(value.numel() for value in state.values())) > MAX_PARAMETERS:
        raise LoadError(f"{file} describes a model of {count:,} weights, of which {MAX_PARAMETERS:,} are allowed.")
    return state


def _files_of_index(folder: Path, index: str) -> tuple[list[Path], dict[str, str]]:
    """The files of weights that are split over several, and the file of each weight, by the `index` that
    `save_pretrained` writes beside them."""
    file = _own_file(folder, index)
    if file.stat().st_size > MAX_INDEX_BYTES:
        raise LoadError(f"{file} has more than {MAX_INDEX_BYTES:,} bytes: it is not the index of a model.")
    try:
        content = json.loads(file.read_bytes())
        places, _ = content["weight_map"], content["metadata"]
        is_map = all(isinstance(place, str) and PART_NAME.fullmatch(place) for place in places.values())
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise LoadError(f"{file} is not the index of a model that is split over files: {error!r}.") from error
    if not is_map or not 0 < len(set(places.values())) <= MAX_PARTS:
        raise LoadError(f"{file} names files that save_pretrained does not write.")
    return [_own_file(folder, name) for name in sorted(set(places.values()))], places


def _check_weights(
    files: list[Path],
    places: dict[str, str] | None,
    expected: dict[str, torch.Tensor],
    config: dict[str, Any],
    prior: Any,
) -> None:
    """Compares the headers of one file or several with the weights of a model, and then looks for values that are not
    finite, one weight at a time: a file is mapped, not read into memory. `places` is the file of each weight by the
    index of several files. In those of an earlier version the names are those of that version, which follows from the
    `config` in its `config.json`. `prior` is the one that the model will have."""
    with ExitStack() as opened:
        weights, wrong = {}, []
        for file in files:
            for name, stored in _open_weights(file, opened).items():
                if name in weights or (places is not None and places.get(name) != file.name):
                    wrong.append(f"{short_repr(name)} is in {file.name}, where the index does not have it")
                weights[name] = stored
        version = version_of(config, weights.keys())
        refuse_early_flow(version, prior, files[0])
        names = upgraded_names(weights, version)
        with _named_if_damaged(files[0].parent if places else files[0]):
            wrong += _wrong_weights({new: weights[old] for old, new in names.items()}, names, expected, version)
    if wrong:
        listing = "; ".join(sorted(wrong)[:5]) + ("" if len(wrong) < 6 else f"; and {len(wrong) - 5} more")
        place = files[0].parent if places else files[0]
        raise LoadError(f"{place} does not have the weights of the model in {CONFIG_NAME}: {listing}.")


def _open_weights(file: Path, opened: ExitStack) -> dict[str, tuple[Any, str]]:
    """The weights of a file, by name: the open file, and the name in it. Nothing but its header is read."""
    with open(file, "rb") as start:
        if (length := int.from_bytes(start.read(8), "little")) > MAX_HEADER_BYTES:
            raise LoadError(
                f"{file} announces a header of {length:,} bytes: it is not a safetensors file. Download it again."
            )
    with _named_if_damaged(file):
        content = opened.enter_context(safe_open(file, framework="pt"))
        return {name: (content, name) for name in content.keys()}  # noqa: SIM118 (it is no dictionary)


def _wrong_weights(
    weights: dict[str, tuple[Any, str]], names: dict[str, str], expected: dict[str, torch.Tensor], version: int
) -> list[str]:
    """What is wrong with weights of a `version`, each as one clause. `names` are their names today, by those in the
    files."""
    added = added_names(version)
    wrong = [f"{name} is missing" for name in expected if name not in weights and name not in added]
    wrong += [f"{short_repr(old)} is unexpected" for old, new in names.items() if new not in expected]
    for name in weights.keys() & expected.keys():
        content, old = weights[name]
        stored = content.get_slice(old)
        found, shape = tuple(stored.get_shape()), tuple(expected[name].shape)
        if found != shape:
            wrong.append(f"{name} has shape {short_repr(found)} instead of {shape}")
        elif (stored.get_dtype() in FLOATS) != expected[name].is_floating_point():
            wrong.append(f"{name} holds values of type {stored.get_dtype()}")
    if wrong:
        return wrong
    return [
        f"{old} is not finite" for content, old in weights.values() if not content.get_tensor(old).isfinite().all()
    ]


@contextmanager
def _named_if_damaged(place: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise LoadError(f"{place} is damaged: {error}. Download or copy it again.") from error


"""Points between latents."""

import math

import torch


def slerp(starts: torch.Tensor, ends: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The points at `weights` (..., 1) on the great circles (Shoemake 1985) from `starts` (..., Z), at 0, to `ends`,
    at 1. Unlike points on a straight line, they keep the length that a Gaussian latent typically has. If both ends lie
    on one line through the origin, as far as float32 can tell, there is no one circle, and the points lie on the
    line."""
    angles = torch.arccos(torch.nn.functional.cosine_similarity(starts, ends, dim=-1).clamp(-1, 1))[..., None]
    is_line = (angles < 1e-3) | (angles > math.pi - 1e-3)
    sines = torch.where(is_line, 1.0, torch.sin(angles))
    circle = (torch.sin((1 - weights) * angles) * starts + torch.sin(weights * angles) * ends) / sines
    return torch.where(is_line, torch.lerp(starts, ends, weights), circle)


"""The contract of a prior: a distribution that latents are drawn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn



LEARNING_BATCH = 128  # latents
DEFAULT_STEPS = 10  # of a prior that follows a path from noise to latents

# Latents (B, Z) that are to come near to others (B, Z), to the error of their images (B,).
ImageError = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
State = tuple[torch.Tensor, ...]
WhileLoop = Callable[[Callable[..., torch.Tensor], Callable[..., State], State], State]


def run_while(condition: Callable[..., torch.Tensor], body: Callable[..., State], state: State) -> State:
    """`torch.while_loop` as a plain loop, which neither traces nor compiles anything."""
    while condition(*state):
        state = body(*state)
    return state


class PriorTraining:
    """A prior that is being learned, update by update."""

    losses: list[torch.Tensor]  # of each update so far, still on the device
    kept: int | None = None  # after how many updates the weights were taken; None if all updates count

    def update(self) -> None:
        """Makes one update."""
        raise NotImplementedError(f"{type(self).__name__} defines no update.")

    def state(self) -> dict[str, Any]:
        """All that the next updates follow from, except the latents: tensors and plain values."""
        raise NotImplementedError(f"{type(self).__name__} defines no state.")

    def restore(self, state: dict[str, Any]) -> None:
        """Returns to the update at which `state` was taken."""
        raise NotImplementedError(f"{type(self).__name__} defines no restore.")


@dataclass(frozen=True)
class Learning:
    """How a prior is learned that needs training updates. Other priors ignore it.

    Args:
        num_updates: Number of updates in all.
        in_bfloat16: Whether its network computes in bf16.
        state: What `PriorTraining.state` gave after an update of the same training, which resumes from there.
        after_update: Is called after each update.
        image_error: Maps latents `(B, Z)`, and those that they are to come near to, to the error of their images
            `(B,)`. A code is learned with it; without it, with the error of the latents alone.
        heldout: Latents `(M, Z)` that are not learned from. A flow keeps the weights whose velocity has the lowest
            error on them; without `heldout`, those after the last update.
        batch_size: Number of latents in an update of a flow. An update of a code takes a quarter of it.
        dropout: The share of features that each block of a flow's UNet sets to 0 during training, at random.
    """

    num_updates: int = 0
    in_bfloat16: bool = False
    state: dict[str, Any] | None = None
    after_update: Callable[[PriorTraining], None] | None = None
    image_error: ImageError | None = None
    heldout: torch.Tensor | None = None
    batch_size: int = LEARNING_BATCH
    dropout: float = 0.0


def learn(training: PriorTraining, learning: Learning) -> None:
    """Makes the updates of `training` that are left."""
    if learning.state is not None:
        training.restore(learning.state)
    for _ in range(len(training.losses), learning.num_updates):
        training.update()
        if learning.after_update is not None:
            learning.after_update(training)


class Prior(nn.Module):
    """A distribution over flat latents `(B, Z)`, as a function of noise of N(0, 1).

    A prior is one file that defines a subclass, and one line in `PRIORS`. Its `__init__` takes what it needs of
    `latent_dim`, `latent_size`, and of the sizes in a model's configuration, by name. Weights and buffers that it
    registers are stored with the model. What is shared is passed in: the principal components of the model's latents.

    Args:
        title: Its name in user interfaces.
        is_fitted: Whether it is fitted to latents; not for a distribution that is fixed.
        needs_encoder: Whether it is useful only when it is fitted to encoded images.
        is_learned: Whether fitting takes training updates (`Learning`). Only a model whose own prior this is has it.
        is_invertible: Whether `to_noise` exists. Images can then be interpolated through its noise.
        num_choices: How many of the last parts of the noise choose among cases. `temperature` does not scale these.
        preview_kind: The name of the prior that stands in for it in previews during training.
    """

    title: ClassVar[str]
    is_fitted: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = True
    is_learned: ClassVar[bool] = False
    is_invertible: ClassVar[bool] = False
    num_choices: int = 0
    preview_kind: ClassVar[str] = "gaussian"

    @property
    def noise_sizes(self) -> list[int]:
        """The size of each part of the noise that one latent is drawn from."""
        raise NotImplementedError(f"{type(self).__name__} defines no noise_sizes.")

    @property
    def noise_scales(self) -> list[float]:
        """What each part of the noise is multiplied by when samples are drawn, at a temperature of 1."""
        return [1.0] * len(self.noise_sizes)

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """The latents `(B, Z)` of noise of N(0, 1).

        Args:
            noise: A part `(B, size)` for each of `noise_sizes`.
            components: The principal components of the model's latents.
            num_steps: Number of steps of a prior that follows a path from noise to latents. Others ignore it.
            while_loop: How such a prior runs its steps. `torch.while_loop` makes one loop of them in an exported
                graph.
            guidance: Strength of what the network of such a prior adds to its Gaussian; its own if None.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no from_noise.")

    def to_noise(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        """The noise that gives `latents` (..., Z) with the same `guidance`, up to the error of the steps, if
        `is_invertible`: a part `(..., size)` for each of `noise_sizes`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be inverted.")

    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        """Fits the prior, in place. The same seed gives the same result, and no global random state is changed.

        Args:
            latents: What it is fitted to, `(N, Z)`, at least two.
            components: The principal components of the same latents.
            seed: Seed of all randomness.
            learning: How a prior is learned that needs training updates.
        """


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


"""The running average of weights, of a training and of a prior that is learned."""

from collections.abc import Mapping

import torch


@torch.no_grad()
def move_average(
    averaged: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor], num_updates: int, decay: float
) -> None:
    """Moves the tensors of `averaged` towards those of `values`, by name and in place: `decay` of each stays. In the
    first updates less stays, `(1 + n) / (10 + n)` after n updates, so that the average soon forgets the random weights
    that it starts from. Integers, such as BatchNorm's counter of batches, are copied.

    Args:
        averaged: The running average, a state dict.
        values: The current weights and buffers, with the same names.
        num_updates: How many updates came before this one.
        decay: The share of the average that stays, from 0 to 1.
    """
    moving = [name for name, value in averaged.items() if value.is_floating_point()]
    speed = 1 - min(decay, (1 + num_updates) / (10 + num_updates))
    torch._foreach_lerp_([averaged[name] for name in moving], [values[name] for name in moving], speed)
    for name in averaged.keys() - moving:
        averaged[name].copy_(values[name])


"""A Gaussian along the principal components."""

from collections.abc import Sequence

import torch



class GaussianPrior(Prior):
    """The Gaussian that the principal components describe. All of it is in these, so there is nothing more to fit."""

    title = "Gaussian"
    needs_encoder = False  # before it is fitted it is N(0, I)

    def __init__(self, latent_dim: int, num_directions: int = NUM_DIRECTIONS):
        super().__init__()
        self.latent_dim, self.num_directions = latent_dim, min(latent_dim, num_directions)

    @property
    def noise_sizes(self) -> list[int]:
        """Of the position along the directions, and of what the directions do not explain."""
        return [self.num_directions, self.latent_dim]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        position, rest = noise
        return components.mean + (position * components.stds) @ components.directions + rest * components.rest


"""A mixture of Gaussians along the principal components."""

import math
from collections.abc import Sequence

import torch



NUM_GAUSSIANS = 16
HELDOUT = 0.1  # the share of the latents that the number of Gaussians is chosen on
MAX_ROUNDS = 100  # of expectation and maximisation, and of k-means before these
TOLERANCE = 1e-3  # rounds end when the mean log-likelihood rises by less
MIN_MIXTURE_VARIANCE = 1e-6  # added to every variance, so that no Gaussian collapses onto one latent


class MixturePrior(Prior):
    """A mixture of up to `num_gaussians` Gaussians with diagonal covariances, over the coordinates along the
    directions: `weights` (M,), `means` and `stds` (M, K). What the directions do not explain is drawn as in
    `GaussianPrior`. Before it is fitted it is one Gaussian, the same as there."""

    title = "mixture of Gaussians"
    num_choices = 1
    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor

    def __init__(self, latent_dim: int, num_directions: int = NUM_DIRECTIONS, num_gaussians: int = NUM_GAUSSIANS):
        super().__init__()
        if num_gaussians < 1:
            raise ValueError(f"num_gaussians={num_gaussians} is not possible; it must be at least 1.")
        self.gaussian = GaussianPrior(latent_dim, num_directions)
        num_directions = min(latent_dim, num_directions)
        self.register_buffer("weights", torch.eye(1, num_gaussians)[0])
        self.register_buffer("means", torch.zeros(num_gaussians, num_directions))
        self.register_buffer("stds", torch.ones(num_gaussians, num_directions))

    @property
    def noise_sizes(self) -> list[int]:
        """Of the position within a Gaussian, of what the directions do not explain, and of what chooses the
        Gaussian."""
        return [*self.gaussian.noise_sizes, 1]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        position, rest, choice = noise
        chosen = choose(self.weights, choice)
        position = self.means[chosen] + position * self.stds[chosen]
        return self.gaussian.from_noise([position, rest], components)

    @torch.no_grad()
    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        """Fits mixtures of 1, 2, 4 and more Gaussians, up to `num_gaussians`, and keeps the one that gives the highest
        likelihood to a tenth of the latents that none of them was fitted to."""
        coordinates = components.coordinates(latents).cpu().double()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(coordinates), generator=generator)
        num_heldout = max(1, round(HELDOUT * len(order)))
        heldout, fitted = coordinates[order[:num_heldout]], coordinates[order[num_heldout:]]
        most = len(self.weights)
        sizes = [*(2**power for power in range(most.bit_length()) if 2**power < most), most]
        mixtures = [fit_mixture(fitted, size, generator) for size in sizes if size <= len(fitted)]
        self.set(*max(mixtures, key=lambda mixture: log_likelihoods(heldout, *mixture).mean()))

    @torch.no_grad()
    def set(self, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> None:
        """Stores a mixture of M <= `num_gaussians` Gaussians over coordinates: `weights` (M,) that sum to 1, `means`
        and `stds` (M, K)."""
        count = len(weights)
        for buffer, values, unused in ((self.weights, weights, 0.0), (self.means, means, 0.0), (self.stds, stds, 1.0)):
            buffer.fill_(unused)
            buffer[:count] = values


Gaussians = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def choose(weights: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """The number of a Gaussian, from 0, for each `choice` (B, 1) of N(0, 1): `(B,)`. Each of the M is chosen as often
    as its share of `weights` (M,) says."""
    chance = torch.special.ndtr(choice.float())  # uniform on (0, 1); half precision is too coarse for many Gaussians
    return (chance > weights.float().cumsum(0)[:-1]).sum(1)


def fit_mixture(points: torch.Tensor, num_gaussians: int, generator: torch.Generator) -> Gaussians:
    """Fits a mixture of M Gaussians with diagonal covariances to `points` (N, K), by expectation and maximisation
    (Dempster et al. 1977) from the clusters of k-means. Returns weights (M,), means and standard deviations (M, K)."""
    shares = torch.nn.functional.one_hot(clusters(points, num_gaussians, generator), num_gaussians).to(points.dtype)
    mixture, before = _maximise(points, shares), -math.inf
    for _ in range(MAX_ROUNDS):
        joint = _joint_log_likelihoods(points, *mixture)
        found = joint.logsumexp(1).mean().item()
        if found - before < TOLERANCE:
            break
        mixture, before = _maximise(points, joint.softmax(1)), found
    return mixture


def log_likelihoods(
    points: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor
) -> torch.Tensor:
    """The natural logarithm of a mixture's density at `points` (N, K): `(N,)`."""
    return _joint_log_likelihoods(points, weights, means, stds).logsumexp(1)


def _joint_log_likelihoods(
    points: torch.Tensor, weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor
) -> torch.Tensor:
    """The logarithm of each Gaussian's weight times its density at `points` (N, K): `(N, M)`."""
    precisions = stds.reciprocal()
    distances = torch.stack(
        [((points - mean) * precision).square().sum(1) for mean, precision in zip(means, precisions, strict=True)], 1
    )
    return weights.log() + precisions.log().sum(1) - 0.5 * (points.shape[1] * math.log(2 * math.pi) + distances)


def _maximise(points: torch.Tensor, shares: torch.Tensor) -> Gaussians:
    """The mixture of highest likelihood for `points` (N, K) of which each Gaussian takes `shares` (N, M)."""
    counts = shares.sum(0) + 10 * torch.finfo(points.dtype).eps  # (M,)
    means = shares.T @ points / counts[:, None]
    variances = (
        torch.stack([share @ (points - mean).square() for share, mean in zip(shares.T, means, strict=True)])
        / counts[:, None]
    )
    return counts / counts.sum(), means, (variances + MIN_MIXTURE_VARIANCE).sqrt()


def clusters(
    points: torch.Tensor, num_clusters: int, generator: torch.Generator, max_rounds: int = MAX_ROUNDS
) -> torch.Tensor:
    """The cluster of each of `points` (N, K), from 0, by k-means: Lloyd's rounds from the centres of k-means++
    (Arthur and Vassilvitskii 2007), which draws each next centre in proportion to the squared distance from those
    before."""
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    distances = torch.full_like(points[:, 0], math.inf)  # (N,), squared, to the nearest centre
    while len(centres) < num_clusters:
        distances = torch.minimum(distances, torch.cdist(points, centres[-1:])[:, 0].square())
        chances = distances if distances.sum() > 0 else torch.ones_like(distances)  # all points are centres already
        centres = torch.cat([centres, points[torch.multinomial(chances, 1, generator=generator)]])
    clusters = torch.cdist(points, centres).argmin(1)
    for _ in range(max_rounds):
        for number in clusters.unique().tolist():  # a cluster that lost all its points keeps its centre
            centres[number] = points[clusters == number].mean(0)
        before, clusters = clusters, torch.cdist(points, centres).argmin(1)
        if torch.equal(before, clusters):
            break
    return clusters


"""The mixture of Gaussians that codes are drawn from."""

import math
from typing import NamedTuple

import torch
from torch import nn



MAX_CODES = 50_000  # that it is fitted to
CODE_ROUNDS = 20  # of expectation and maximisation, and of k-means before these: more take long and gain 0.1 nats
CODE_TOLERANCE = 1e-2  # rounds end when the mean log-likelihood rises by less
MIN_CODE_VARIANCE = 1e-6  # added to every variance, so that no direction is lost


class CodeGaussians(NamedTuple):
    """A mixture of M Gaussians of one covariance over codes `(N, C)`.

    Args:
        weights: Their shares `(M,)`, which sum to 1.
        means: `(M, C)`.
        root: A lower triangular R `(C, C)` of their covariance R R^T.
    """

    weights: torch.Tensor
    means: torch.Tensor
    root: torch.Tensor

    @classmethod
    def fitted(cls, codes: torch.Tensor, num_gaussians: int, generator: torch.Generator) -> "CodeGaussians":
        """The mixture of M Gaussians that expectation and maximisation (Dempster et al. 1977) fit to `codes` (N, C),
        from the clusters of k-means."""
        groups = clusters(codes, num_gaussians, generator, CODE_ROUNDS)
        shares = nn.functional.one_hot(groups, num_gaussians).to(codes.dtype)
        mixture, before = cls.of_shares(codes, shares), -math.inf
        for _ in range(CODE_ROUNDS):
            joint = mixture.joint_log_likelihoods(codes)
            found = joint.logsumexp(1).mean().item()
            if found - before < CODE_TOLERANCE:
                break
            mixture, before = cls.of_shares(codes, joint.softmax(1)), found
        return mixture

    @classmethod
    def of_shares(cls, codes: torch.Tensor, shares: torch.Tensor) -> "CodeGaussians":
        """The mixture of highest likelihood for `codes` (N, C) of which each Gaussian takes `shares` (N, M)."""
        counts = shares.sum(0) + 10 * torch.finfo(codes.dtype).eps  # (M,)
        means = shares.T @ codes / counts[:, None]
        covariance = (codes.T @ codes - (means.T * counts) @ means) / len(codes)
        covariance.diagonal().add_(MIN_CODE_VARIANCE)
        return cls(counts / counts.sum(), means, torch.linalg.cholesky(covariance))

    def log_likelihoods(self, codes: torch.Tensor) -> torch.Tensor:
        """The natural logarithm of the density at `codes` (N, C): `(N,)`."""
        return self.joint_log_likelihoods(codes).logsumexp(1)

    def joint_log_likelihoods(self, codes: torch.Tensor) -> torch.Tensor:
        """The logarithm of each Gaussian's weight times its density at `codes` (N, C): `(N, M)`."""
        white_codes, white_means = (
            torch.linalg.solve_triangular(self.root, points.T, upper=False).T for points in (codes, self.means)
        )
        scale = self.root.diagonal().log().sum() + 0.5 * codes.shape[1] * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * torch.cdist(white_codes, white_means).square() - scale


class CodeMixture(nn.Module):
    """A mixture of up to M Gaussians that share a covariance, over codes `(N, C)`: `weights` (M,), `means` (M, C) and
    `root` (C, C). Before it is fitted it is N(0, I).

    With one covariance for all, M Gaussians need little more than their means. So many of them can be fitted to a few
    thousand codes.

    Args:
        code_dim: Numbers C in a code.
        num_gaussians: The most Gaussians M.
    """

    weights: torch.Tensor
    means: torch.Tensor
    root: torch.Tensor

    def __init__(self, code_dim: int, num_gaussians: int):
        super().__init__()
        self.register_buffer("weights", torch.eye(1, num_gaussians)[0])
        self.register_buffer("means", torch.zeros(num_gaussians, code_dim))
        self.register_buffer("root", torch.eye(code_dim))

    def forward(self, noise: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        """Codes `(B, C)` from noise of N(0, 1), `noise` (B, C) and `choice` (B, 1), which chooses the Gaussian."""
        return self.means[choose(self.weights, choice)] + noise @ self.root.T

    @torch.no_grad()
    def fit(self, codes: torch.Tensor, heldout: torch.Tensor | None = None, seed: int = 0) -> None:
        """Fits mixtures of 1, 4, 16 and more Gaussians, up to M, to `codes` (N, C). It keeps the one that gives the
        highest likelihood to codes `heldout` (K, C); without these, to a tenth of the codes that none was fitted to.
        Of more than 50,000 codes, it takes so many at random."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(codes), generator=generator)[:MAX_CODES]
        fitted = codes[order.to(codes.device)].cpu().double()
        if heldout is None:
            num_heldout = max(1, round(HELDOUT * len(fitted)))
            known, fitted = fitted[:num_heldout], fitted[num_heldout:]
        else:
            known = heldout.cpu().double()
        most = len(self.weights)
        sizes = [*(4**power for power in range(most.bit_length()) if 4**power < most), most]
        mixtures = [CodeGaussians.fitted(fitted, size, generator) for size in sizes if size <= len(fitted)]
        best = max(mixtures, key=lambda mixture: mixture.log_likelihoods(known).mean())
        self.weights.zero_()[: len(best.weights)] = best.weights
        self.means.zero_()[: len(best.means)] = best.means
        self.root.copy_(best.root)


"""The flow: a network that carries noise to latents, and the prior that is such a flow."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from torch import nn



UNET_GROUPS = 16
MAX_FLOW_DEPTH = 64  # what bounds the number of layers that a few bytes of configuration can ask for
MIN_VARIANCE = 1e-6  # along the directions, so that the velocity is finite at the latents themselves
LEARNING_RATE = 1e-3
AVERAGE_DECAY = 0.999
CALIBRATION_SAMPLES = 2048
HELDOUT_UPDATES = 250  # from one measurement of the error on held-out latents to the next

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor | None]]


class Flow(nn.Module):
    """Flow matching (Lipman et al. 2023; the straight paths of Liu et al. 2023) on normalised latents `(B, Z)`: a UNet
    of diffusers for latents on a grid, a residual MLP for latents without a grid.

    It predicts the velocity `noise - latents` at the point `(1 - t) latents + t noise`. Following it backwards from
    noise, at `t = 1`, to `t = 0` gives latents. The velocity is that of a Gaussian plus what the network adds. The
    Gaussian has the variances `variances` (K,) along its principal components `directions` (K, Z), and their mean
    `rest` (1,) along all others. A learned velocity takes latents too close to their mean; so they are normalised once
    more, with the `mean` and `std` (Z,) that `calibrate` finds.

    What the network adds can be strengthened: `gaussian + guidance * added`, the guidance of a model by a weaker one
    (Karras et al. 2024), in which the Gaussian is the weaker one and costs nothing. Samples are then more typical. But
    some of the latents get too long. At each time, the velocity points at an estimate of the latents. With
    `guidance_rescale`, this estimate has the length that it has without guidance (after Lin et al. 2024, section 3.4).

    A flow may have a condition: other latents `(B, Z)`, which its network sees beside the point.

    Args:
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid that they lie on; 1 for latents without a grid.
        flow_width: Channels of the UNet at its finest scale, a multiple of 16.
        flow_mlp_width: Features of the MLP.
        flow_depth: Residual blocks of the UNet at each scale; the MLP has twice as many.
        flow_directions: The most principal components of the Gaussian; K is the smaller of this and Z.
        has_condition: Whether it has a condition.
        guidance_rescale: From 0, for guidance as it is, to 1, for the whole of this correction.

    Raises:
        ValueError: If a size or `guidance_rescale` is not possible.
    """

    directions: torch.Tensor
    variances: torch.Tensor
    rest: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        has_condition: bool = False,
        guidance_rescale: float = 0.0,
    ):
        super().__init__()
        if not 1 <= flow_depth <= MAX_FLOW_DEPTH:
            raise ValueError(f"flow_depth={flow_depth} is not possible; it must be from 1 to {MAX_FLOW_DEPTH}.")
        if flow_width < UNET_GROUPS or flow_width % UNET_GROUPS:
            raise ValueError(f"flow_width={flow_width} is not possible; it must be a multiple of {UNET_GROUPS}.")
        if flow_mlp_width < 16 or flow_mlp_width % 16:
            raise ValueError(f"flow_mlp_width={flow_mlp_width} is not possible; it must be a multiple of 16.")
        if flow_directions < 1:
            raise ValueError(f"flow_directions={flow_directions} is not possible; it must be at least 1.")
        if not 0 <= guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale={guidance_rescale} is not possible; it must be from 0 to 1.")
        self.latent_dim, self.latent_size, self.has_condition = latent_dim, latent_size, has_condition
        self.guidance_rescale = guidance_rescale
        self.width, self.mlp_width, self.depth = flow_width, flow_mlp_width, flow_depth
        self.latent_shape = (
            (latent_dim // latent_size**2, latent_size, latent_size) if latent_size > 1 else (latent_dim,)
        )
        self.network = self._new_network()
        num_directions = min(latent_dim, flow_directions)
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("variances", torch.ones(num_directions))
        self.register_buffer("rest", torch.ones(1))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    def _new_network(self) -> nn.Module:
        inputs = 2 if self.has_condition else 1
        if self.latent_size > 1:
            return _unet(inputs, self.latent_shape[0], self.latent_size, self.width, self.depth)
        return FlowMLP(inputs * self.latent_dim, self.latent_dim, self.mlp_width, 2 * self.depth)

    def forward(
        self,
        points: torch.Tensor,
        times: torch.Tensor,
        condition: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """The velocity `(B, Z)` at `points` (B, Z) and `times` (B,) in [0, 1]."""
        gaussian, added = self.gaussian_velocity(points, times), self.added_velocity(points, times, condition)
        guided = gaussian + guidance * added
        if self.guidance_rescale == 0 or guidance == 1:
            return guided
        longer = _lengthening(points, times[:, None], gaussian + added, guided)
        return guided + (self.guidance_rescale * longer).to(points.dtype)

    def gaussian_velocity(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The expectation of `noise - latents` if latents are the Gaussian, `(B, Z)`. Along a direction of the
        variance v it is `(t - (1 - t) v) / ((1 - t)^2 v + t^2)` times the point."""
        kept, noise = 1 - times[:, None], times[:, None]
        slopes, rest = (
            ((noise - kept * variance) / (kept.square() * variance + noise.square())).to(points.dtype)
            for variance in (self.variances, self.rest)
        )  # (B, K) and (B, 1)
        return rest * points + (slopes - rest) * F.linear(points, self.directions) @ self.directions

    def added_velocity(
        self, points: torch.Tensor, times: torch.Tensor, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the network adds to that, `(B, Z)`. Its input has the variance 1 at any time (after Karras et al. 2022,
        section 5)."""
        scale = ((1 - times).square() + times.square()).sqrt()[:, None]
        seen = (points / scale).to(points.dtype).unflatten(1, self.latent_shape)
        if condition is not None:
            seen = torch.cat([seen, condition.to(points.dtype).unflatten(1, self.latent_shape)], 1)
        added = self.network(seen, 1000 * times, return_dict=False)[0].flatten(1)
        return (added / scale).to(points.dtype)

    @torch.no_grad()
    def start_from(self, latents: torch.Tensor) -> None:
        """Takes the Gaussian from normalised `latents` (N, Z)."""
        variances, directions = principal_components(latents.cpu().double().T.cov().reshape(2 * [self.latent_dim]))
        count = len(self.variances)
        self.directions.copy_(directions[:count])
        self.variances.copy_(variances[:count].clamp(min=MIN_VARIANCE))
        if count < len(variances):
            self.rest.copy_(variances[count:].mean().clamp(min=MIN_VARIANCE))

    def shifted(self, times: torch.Tensor) -> torch.Tensor:
        """Times in [0, 1] of any shape, moved to where latents take shape (Esser et al. 2024, section 5.3.2).

        A direction of the standard deviation s emerges from the noise where `t / (1 - t)` is s. So that ratio is
        multiplied by the geometric mean of s over the directions of the Gaussian, weighted by their variance. Times
        move towards the noise where few directions hold most of the variance. For N(0, I) they stay.
        """
        variances = torch.cat([self.variances, self.rest.expand(self.directions.shape[1] - len(self.variances))])
        ratio = ((variances * variances.log()).sum() / variances.sum() / 2).exp()
        return (times * ratio / (1 - times + times * ratio)).to(times.dtype)

    def sampling_times(self, num_steps: int = DEFAULT_STEPS) -> torch.Tensor:
        """The times `(num_steps + 1,)` from noise, 1, to latents, 0, between which the steps of `sample` lie.

        Raises:
            ValueError: If `num_steps` is below 1.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} is not possible; it must be at least 1.")
        return self.shifted(torch.linspace(1, 0, num_steps + 1, device=self.rest.device))

    def sample(
        self,
        noise: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        condition: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """Carries `noise` (..., Z) of N(0, I) to normalised latents `(..., Z)`. The calibration is for the default
        number of steps and the guidance of `calibrate`; more steps are more exact and draw about the same latents."""
        carried = self._carry(noise, self.sampling_times(num_steps), condition, guidance, while_loop)
        return (carried - self.mean) / self.std

    def noise_of(
        self,
        latents: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        condition: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """Carries normalised `latents` (..., Z) back to the noise `(..., Z)` that `sample` makes them from, up to the
        error of the steps."""
        times = self.sampling_times(num_steps).flip(0)
        return self._carry(latents * self.std + self.mean, times, condition, guidance)

    def calibrate(self, noise: torch.Tensor, condition: torch.Tensor | None = None, guidance: float = 1.0) -> None:
        """Sets `mean` and `std` to those of the latents that `noise` (N, Z) becomes. Latents are normalised with them
        from then on, as those are that the flow learned from."""
        carried = self._carry(noise, self.sampling_times(), condition, guidance)
        self.mean.copy_(carried.mean(0))
        self.std.copy_(carried.std(0))

    @torch.no_grad()
    def _carry(
        self,
        points: torch.Tensor,
        times: torch.Tensor,
        condition: torch.Tensor | None,
        guidance: float,
        while_loop: WhileLoop = run_while,
    ) -> torch.Tensor:
        condition = None if condition is None else condition.expand_as(points).flatten(0, -2)

        def velocity(points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            return self(points, times, condition, guidance)

        return integrate(velocity, points.flatten(0, -2), times, while_loop).view(points.shape)


class FlowPrior(Flow, Prior):
    """A flow of the latents themselves. The arguments are those of `Flow`, and its usual `guidance`, 1 if None."""

    title = "flow (learned)"
    is_learned = True
    is_invertible = True

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        guidance: float | None = None,
        guidance_rescale: float = 0.0,
    ):
        sizes = (latent_dim, latent_size, flow_width, flow_mlp_width, flow_depth, flow_directions)
        super().__init__(*sizes, guidance_rescale=guidance_rescale)
        self.guidance = 1.0 if guidance is None else guidance

    @property
    def noise_sizes(self) -> list[int]:
        return [self.latent_dim]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        guidance = self.guidance if guidance is None else guidance
        return components.denormalised(self.sample(noise[0], num_steps, while_loop, guidance=guidance))

    def to_noise(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        guidance = self.guidance if guidance is None else guidance
        return [self.noise_of(components.normalised(latents), num_steps, guidance=guidance)]

    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        normalised = components.normalised(latents.to(self.rest.device))

        def draw(count: int, generator: torch.Generator) -> tuple[torch.Tensor, None]:
            chosen = torch.randint(len(normalised), (count,), generator=generator, device=normalised.device)
            return normalised[chosen], None

        self.start_from(normalised)
        heldout = learning.heldout
        known = None if heldout is None else (components.normalised(heldout.to(self.rest.device)), None)
        training = FlowTraining(self, draw, learning.num_updates, seed, learning, known)
        learn(training, learning)
        training.finish(self.guidance)


class FlowTraining(PriorTraining):
    """A flow that is being learned, with its optimizer and its running average.

    The loss is the squared error of the velocity, averaged over latents (Lipman et al. 2023, equation 23), at times
    drawn from the logistic of N(0, 1) (Esser et al. 2024, section 3.1) and shifted.

    With held-out latents, the running average is measured on them every 250 updates and after the last one, always
    with the same noise and times. The weights with the lowest error are kept.

    Args:
        flow: What learns, from new random weights. Its Gaussian is fitted already.
        draw: Draws so many normalised latents `(B, Z)`, and the condition `(B, Z)` of each or None, from a generator.
        num_updates: Number of updates in all, which the learning rate follows.
        seed: Seed of the first weights and of all noise.
        learning: The batch size, the precision and the dropout.
        heldout: Normalised latents `(M, Z)` that are not learned from, and the condition `(M, Z)` of each or None.
    """

    def __init__(
        self,
        flow: Flow,
        draw: Draw,
        num_updates: int,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
        heldout: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    ):
        device = flow.rest.device
        self._heldout, self._seed, self._num_updates = heldout, seed, num_updates
        self._lowest: float | None = None
        self._best: dict[str, torch.Tensor] = {}
        self._draw, self._device, self._learning = draw, device, learning
        self.flow = flow.requires_grad_(True).train()
        with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type):
            torch.manual_seed(seed)
            flow.network = flow._new_network().to(device)
        for module in flow.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = learning.dropout
        self.averaged = copy.deepcopy(flow).requires_grad_(False)
        self._optimizer = torch.optim.AdamW(flow.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, num_updates)
        self._generator = torch.Generator(device).manual_seed(seed)
        self.losses: list[torch.Tensor] = []

    def update(self) -> None:
        device, flow, batch_size = self._device, self.flow, self._learning.batch_size
        latents, condition = self._draw(batch_size, self._generator)
        noise = self.noise(batch_size)
        times = flow.shifted(torch.randn(batch_size, generator=self._generator, device=device).sigmoid())
        points = torch.lerp(latents, noise, times[:, None])
        with torch.autocast(device.type, torch.bfloat16, enabled=self._learning.in_bfloat16):
            added = flow.added_velocity(points, times, condition)
        velocity = flow.gaussian_velocity(points, times) + added.float()
        loss = (velocity - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        move_average(self.averaged.state_dict(), flow.state_dict(), len(self.losses), AVERAGE_DECAY)
        self.losses.append(loss.detach())
        if len(self.losses) % HELDOUT_UPDATES == 0 or len(self.losses) == self._num_updates:
            self._compare()

    def _compare(self) -> None:
        """Keeps the running average if no earlier one had a lower error on held-out latents."""
        error = self.heldout_error()
        if error is not None and (self._lowest is None or error < self._lowest):
            self._lowest, self.kept = error, len(self.losses)
            self._best = copy.deepcopy(self.averaged.state_dict())

    @torch.no_grad()
    def heldout_error(self) -> float | None:
        """The mean squared error of the velocity of the running average on held-out latents, None without any."""
        if self._heldout is None:
            return None
        latents, condition = self._heldout
        generator = torch.Generator(self._device).manual_seed(self._seed)
        noise = torch.randn(latents.shape, generator=generator, device=self._device)
        times = torch.randn(len(latents), generator=generator, device=self._device).sigmoid()
        times = self.averaged.shifted(times)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._learning.in_bfloat16):
            velocity = self.averaged.eval()(torch.lerp(latents, noise, times[:, None]), times, condition)
        return (velocity.float() - (noise - latents)).square().mean().item()

    def noise(self, rows: int) -> torch.Tensor:
        """The next `(rows, Z)` of N(0, I)."""
        return torch.randn(rows, self.flow.latent_dim, generator=self._generator, device=self._device)

    def finish(self, guidance: float = 1.0) -> None:
        """Gives the flow its averaged weights, and calibrates it for sampling with `guidance`."""
        self.flow.load_state_dict(self._best or self.averaged.state_dict())
        self.flow.eval().requires_grad_(False)
        _, condition = self._draw(CALIBRATION_SAMPLES, self._generator)
        self.flow.calibrate(self.noise(CALIBRATION_SAMPLES), condition, guidance)

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()} | {
            "generator": self._generator.get_state(),
            "losses": torch.stack(self.losses),
            "best": self._best,
            "lowest": self._lowest,
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"].to(self._device))
        self._best = {name: value.to(self._device) for name, value in state["best"].items()}
        self._lowest, self.kept = state["lowest"], state["kept"]

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "flow": self.flow,
            "averaged": self.averaged,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }


def _lengthening(points: torch.Tensor, time: torch.Tensor, plain: torch.Tensor, guided: torch.Tensor) -> torch.Tensor:
    """What gives the latents that the velocity `guided` points at the length of those that `plain` points at, (B, Z)
    each: it is to be added to `guided`. Latents x and lengths |x| give `(|guided x| - |plain x|) / (t |guided x|)`
    times the guided x. Written so, it has no division by the time t (B, 1), which may be 0."""
    plain_ends, guided_ends = points - time * plain, points - time * guided
    plain_length, length = (torch.linalg.vector_norm(ends, dim=1, keepdim=True) for ends in (plain_ends, guided_ends))
    gain = ((plain - guided) * (plain_ends + guided_ends)).sum(1, keepdim=True)  # (|guided x|^2 - |plain x|^2) / t
    return gain / (length * (length + plain_length)).clamp(min=1e-12) * guided_ends


def integrate(
    velocity: Velocity,
    points: torch.Tensor,
    times: torch.Tensor,
    while_loop: WhileLoop = run_while,
) -> torch.Tensor:
    """Carries points along a velocity field by the two-step Adams-Bashforth method: each step is as cheap as one of
    Euler's, and its error is of second order.

    Args:
        velocity: Takes points `(B, Z)` and times `(B,)`, and gives the velocity `(B, Z)`.
        points: Where they start, `(B, Z)`.
        times: From the first to the last one, `(N + 1,)` for N steps.
        while_loop: `torch.while_loop` for a graph that holds one loop instead of N steps in a row.

    Returns:
        The points at the last time, `(B, Z)`.
    """
    steps = times.diff()

    def is_unfinished(index: torch.Tensor, points: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return (index < len(steps)).all()

    def advance(index: torch.Tensor, points: torch.Tensor, before: torch.Tensor) -> State:
        now = velocity(points, times[index].expand(len(points)))
        step, last_step = steps[index], steps[(index - 1).clamp(min=0)]
        slope = torch.where(index == 0, 0, (now - before) / last_step)
        return index + 1, (points + step * (now + step / 2 * slope)).to(points.dtype), now

    first = torch.zeros(1, dtype=torch.long, device=points.device)
    return while_loop(is_unfinished, advance, (first, points.clone(), torch.zeros_like(points)))[1]


class FlowMLP(nn.Module):
    """Residual blocks over `(B, num_inputs)`, each of which gets the time."""

    def __init__(self, num_inputs: int, num_outputs: int, width: int, num_blocks: int):
        super().__init__()
        time_channels = width // 8
        self.embed_time = nn.Sequential(
            Timesteps(time_channels, flip_sin_to_cos=True, downscale_freq_shift=0),
            nn.Linear(time_channels, width),
            nn.SiLU(),
        )
        self.first = nn.Linear(num_inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(num_blocks)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_outputs))

    def forward(self, points: torch.Tensor, times: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        """Takes and returns what diffusers' UNets do: points, times in [0, 1000], and a tuple of the velocity."""
        time = self.embed_time[1:](self.embed_time[0](times).to(points.dtype))
        hidden = self.first(points)
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return (self.last(F.silu(hidden)),)


def _unet(inputs: int, channels: int, latent_size: int, width: int, depth: int) -> nn.Module:
    """A UNet that halves the grid while it is even, down to 4 cells. It has no attention: at its coarsest scale, each
    cell sees nearly all others anyway, and on a CPU attention would take as long as all the rest."""
    # imported here: it takes a second, and only a flow on a grid needs it
    from diffusers.models.unets.unet_2d import UNet2DModel

    levels = 1
    while latent_size % 2**levels == 0 and latent_size >> levels >= 4 and levels < 3:
        levels += 1
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=inputs * channels,
        out_channels=channels,
        block_out_channels=tuple(width * min(2**level, 2) for level in range(levels)),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=depth,
        norm_num_groups=UNET_GROUPS,
        add_attention=False,
    )


"""The prior with a code: a few numbers for the whole image first, then a flow of the latents given them."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn



CODE_DIM, CODE_GAUSSIANS = 128, 128
GUIDANCE, REST_TEMPERATURE = 2.5, 0.85  # what LFWcrop looks best with: model_cards/EXPERIMENTS.md
PATH_NOISE = 0.85  # least root mean square of the noise midway between two images: model_cards/EXPERIMENTS.md
CODE_SHARE = 0.3  # of the training updates; the flow takes the others
BATCH_RATIO = 4  # latents in an update of the flow, to those in one of the code, which decodes images
CODE_LEARNING_RATE = 1e-3
CODE_WEIGHT = 4096.0  # of the error against the KL, at the start
WEIGHT_RATE = 0.02  # how fast that weight follows the nats
LATENTS_WEIGHT = 0.02  # of the error of latents, beside that of images
CODE_LOGVAR_RANGE = (-10.0, 4.0)
CODE_AVERAGE_DECAY = 0.998
CODE_ENCODE_BATCH = 512
COARSEST = 4  # cells
MAX_WIDENING = 4  # of the channels, from the grid's own scale to the coarsest


Drawn = tuple[torch.Tensor, torch.Tensor]  # the latents that a code leads to expect, and their rest


class CodePrior(Prior):
    """A code and a flow. A mixture of Gaussians draws the code `(B, code_dim)`, which says what the image as a whole
    is. A network turns it into the latents that it leads to expect. Given these, a flow draws the rest of the latents.

    The code is that of a small VAE of the latents, whose error is measured in images. It is held at `code_nats` of
    information, so that it keeps to what matters most, and so that a mixture suffices to draw it. What people move
    along are the principal components of the code: the flow then draws the rest again, from the same noise. Latents
    are drawn given a code as in diffusion autoencoders (Preechakul et al. 2022).

    Args:
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid that they lie on; 1 for latents without a grid.
        code_dim: Numbers in the code.
        code_nats: Information of the code about an image, in nats, that training holds it at.
        code_gaussians: The most Gaussians that it is drawn from, see `CodeMixture`; with 1 it is drawn from N(0, I),
            along its principal components in standard deviations.
        code_width: Channels of its networks at the grid's own scale, a multiple of 8. They double at each coarser one.
        rest_temperature: Scale of the flow's noise in samples. Below 1, what the code does not say is more typical.
        rest_limit: Root mean square of the rest above which code and rest of a sample are drawn a second time. The
            shorter rest stays: malformed samples have the longest. None draws every sample once.
        rest_margin: Rings of cells at the edge of the grid that this length leaves out, as they show background.
        guidance: Strength of what the flow's network adds to its Gaussian, see `Flow`; 2.5 if None.
        guidance_rescale: As in `Flow`.
        flow_width: As in `Flow`.
        flow_mlp_width: As in `Flow`; also the features of the code's networks for latents without a grid.
        flow_depth: As in `Flow`.
        flow_directions: As in `Flow`.

    Raises:
        ValueError: If a size is not possible.
    """

    title = "code and flow (learned)"
    is_learned = True
    is_invertible = True
    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        code_dim: int = CODE_DIM,
        code_nats: float = 60.0,
        code_gaussians: int = CODE_GAUSSIANS,
        code_width: int = 64,
        rest_temperature: float = REST_TEMPERATURE,
        rest_limit: float | None = None,
        rest_margin: int = 0,
        guidance: float | None = None,
        guidance_rescale: float = 0.0,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
    ):
        super().__init__()
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim} is not possible; it must be at least 1.")
        if not code_nats > 0:
            raise ValueError(f"code_nats={code_nats} is not possible; it must be above 0.")
        if code_gaussians < 1:
            raise ValueError(f"code_gaussians={code_gaussians} is not possible; it must be at least 1.")
        if rest_limit is not None and not rest_limit > 0:
            raise ValueError(f"rest_limit={rest_limit} is not possible; it must be above 0.")
        if not 0 <= rest_margin <= (latent_size - 1) // 2:
            most = (latent_size - 1) // 2  # at least one cell is left
            raise ValueError(f"rest_margin={rest_margin} is not possible; it must be from 0 to {most}.")
        if code_width < GROUPS or code_width % GROUPS:
            raise ValueError(f"code_width={code_width} is not possible; it must be a multiple of {GROUPS}.")
        sizes = (latent_dim, latent_size, flow_width, flow_mlp_width, flow_depth, flow_directions)
        self.flow = Flow(*sizes, has_condition=True, guidance_rescale=guidance_rescale)
        self.latent_dim, self.latent_shape, self.code_dim = latent_dim, self.flow.latent_shape, code_dim
        self.code_nats, self.code_width = code_nats, code_width
        self.guidance = GUIDANCE if guidance is None else guidance
        self.rest_temperature, self.rest_limit, self.rest_margin = rest_temperature, rest_limit, rest_margin
        self.encoder, self.decoder = self._new_networks()
        self.code = PrincipalComponents(code_dim, code_dim)
        self.mixture = CodeMixture(code_dim, code_gaussians) if code_gaussians > 1 else None
        self.noise_scales_at(rest_temperature)  # refuses one that is not possible
        self.register_buffer("shift", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def _new_networks(self) -> tuple[nn.Module, nn.Module]:
        if len(self.latent_shape) == 1:
            width = self.flow.mlp_width
            return _mlp(self.latent_dim, width, 2 * self.code_dim), _mlp(self.code_dim, width, self.latent_dim)
        channels, size, _ = self.latent_shape
        return (
            _grid_encoder(channels, size, 2 * self.code_dim, self.code_width),
            _grid_decoder(channels, size, self.code_dim, self.code_width),
        )

    @property
    def num_draws(self) -> int:
        """Of the code and the rest of each sample."""
        return 1 if self.rest_limit is None else 2

    @property
    def num_choices(self) -> int:  # type: ignore[override]
        """One for each draw, of a Gaussian of the mixture."""
        return 0 if self.mixture is None else self.num_draws

    @property
    def noise_sizes(self) -> list[int]:
        """Of the code and of the flow, for each draw, and then of what chooses the Gaussian of each draw."""
        return [self.code_dim, self.latent_dim] * self.num_draws + [1] * self.num_choices

    @property
    def noise_scales(self) -> list[float]:
        return self.noise_scales_at(self.rest_temperature)

    def noise_scales_at(self, rest_temperature: float) -> list[float]:
        """The `noise_scales` with another temperature of the rest.

        Raises:
            ValueError: If it is below 0.
        """
        if not rest_temperature >= 0:
            raise ValueError(f"rest_temperature={rest_temperature} is not possible; it must be at least 0.")
        return [1.0, rest_temperature] * self.num_draws + [1.0] * self.num_choices

    def like_samples(self, rest: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The noise `rest` (..., Z) of images, a `share` (..., 1) of the way to noise of samples: with their
        temperature, and no longer than that of N(0, I) nearly always is. Guidance makes the noise of an image
        longer."""
        length = _length(rest)
        longest = 1 + 3 / math.sqrt(2 * rest.shape[-1])  # its mean and three standard deviations
        scale = (longest / length).clamp(max=min(1.0, self.rest_temperature))
        return rest * (1 + (scale - 1) * share)

    def no_softer(self, rest: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The noise `rest` (..., Z) between two images, a `share` (..., 1) of the way to one whose root mean square is
        at least 0.85. Encoded images have shorter noise: residual latents hold what it lacks. These fade between two
        images, which would be soft. Noise is in proportion to the calibration of the flow, so one that narrows latents
        needs less."""
        length, least = _length(rest).clamp(min=1e-6), PATH_NOISE * self.flow.std.mean().clamp(max=1)
        return rest * (1 + ((least / length).clamp(min=1) - 1) * share)

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """The latents of a code `(..., code_dim)`, along its principal components in standard deviations, and of the
        flow's noise `(..., Z)`, as `to_noise` gives them.

        Samples of a prior with a `rest_limit` have two such pairs, `(B, code_dim)` and `(B, Z)`. If parts `(B, 1)`
        follow, one for each pair, they choose Gaussians of the mixture, which make codes of noise of N(0, 1)."""
        guidance = self.guidance if guidance is None else guidance
        num_draws = 1 if len(noise) < 4 else 2
        codes, rests, choices = noise[: 2 * num_draws : 2], noise[1 : 2 * num_draws : 2], noise[2 * num_draws :]

        def draw(number: int, rows: torch.Tensor | slice = slice(None)) -> Drawn:
            position, rest = codes[number][rows], rests[number][rows]
            if choices:
                assert self.mixture is not None
                position = self.mixture(position, choices[number][rows])
            code = self.code.mean + (position * self.code.stds) @ self.code.directions
            expected = self.expected(code)
            return expected, self.flow.sample(rest, num_steps, while_loop, expected, guidance)

        expected, rest = draw(0)
        if self.rest_limit is not None and num_draws > 1:
            expected, rest = self._shorter((expected, rest), self.rest_limit, lambda rows: draw(1, rows))
        return components.denormalised(expected + self.shift + self.scale * rest)

    def _shorter(self, first: Drawn, limit: float, draw_again: Callable[[torch.Tensor | slice], Drawn]) -> Drawn:
        """Samples, of which those with a rest above the `limit` are drawn again, by their numbers `(B',)`. The shorter
        rest stays."""
        length = self._inner_length(first[1])
        is_long = length > limit
        rows: torch.Tensor | slice = slice(None)
        if not torch.compiler.is_exporting():  # in a graph, whose shapes cannot depend on values, all are drawn again
            rows = is_long[:, 0].nonzero()[:, 0]
            if len(rows) == 0:
                return first
        second = draw_again(rows)
        is_better = is_long[rows] & (self._inner_length(second[1]) < length[rows])
        expected, rest = (part.clone() for part in first)
        expected[rows] = torch.where(is_better, second[0], expected[rows])
        rest[rows] = torch.where(is_better, second[1], rest[rows])
        return expected, rest

    def _inner_length(self, rest: torch.Tensor) -> torch.Tensor:
        """The root mean square of `rest` (B, Z) without the rings of `rest_margin`: `(B, 1)`."""
        margin = self.rest_margin
        if margin:
            rest = rest.unflatten(1, self.latent_shape)[..., margin:-margin, margin:-margin].flatten(1)
        return _length(rest)

    def to_noise(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        normalised = components.normalised(latents)
        code, _ = self.posterior(normalised)
        expected = self.expected(code)
        rest = (normalised - expected - self.shift) / self.scale
        guidance = self.guidance if guidance is None else guidance
        return [self.code.coordinates(code), self.flow.noise_of(rest, num_steps, expected, guidance)]

    def coordinates(
        self, latents: torch.Tensor, components: PrincipalComponents, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """The code of latents `(B, Z)` along its principal components, in standard deviations: `(B, code_dim)`. It is
        the mean of the posterior, or a draw from it with a `generator` (of the CPU)."""
        code, logvar = self.posterior(components.normalised(latents))
        if generator is not None:
            noise = torch.randn(code.shape, generator=generator).to(code.device)
            code = code + torch.exp(0.5 * logvar) * noise
        return self.code.coordinates(code)

    def posterior(self, normalised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and log-variance of the code, `(..., code_dim)` each, of normalised latents `(..., Z)`."""
        grids = normalised.flatten(0, -2).unflatten(1, self.latent_shape)
        mean, logvar = self.encoder(grids).float().unflatten(0, normalised.shape[:-1]).chunk(2, -1)
        return mean, logvar.clamp(*CODE_LOGVAR_RANGE)

    def expected(self, code: torch.Tensor) -> torch.Tensor:
        """The normalised latents `(..., Z)` that a code `(..., code_dim)` leads to expect."""
        return self.decoder(code.flatten(0, -2)).float().flatten(1).unflatten(0, code.shape[:-1])

    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        training = CodeTraining(self, latents.to(self.shift.device), components, seed, learning)
        learn(training, learning)
        training.finish()


class CodeTraining(PriorTraining):
    """A code that is being learned, and then the flow of the latents given it.

    The code's loss is that of a VAE (Kingma and Welling 2014), `weight * error + KL` in nats, where the weight follows
    the KL so that this becomes the prior's `code_nats`. The error is `Learning.image_error` between the images of the
    latents and of those that the code leads to expect, plus a small share of the squared error of the latents.

    Args:
        prior: What learns, from new random weights.
        latents: `(N, Z)`, on the device of the prior.
        components: Their principal components.
        seed: Seed of the first weights and of all noise.
        learning: How it is learned.
    """

    def __init__(
        self, prior: CodePrior, latents: torch.Tensor, components: PrincipalComponents, seed: int, learning: Learning
    ):
        device = latents.device
        self._latents, self._components, self._learning = components.normalised(latents), components, learning
        self._num_code_updates = round(CODE_SHARE * learning.num_updates)
        with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type):
            torch.manual_seed(seed)
            prior.encoder, prior.decoder = (network.to(device) for network in prior._new_networks())
        self._seed, self.prior = seed, prior
        self._networks = nn.ModuleList([prior.encoder, prior.decoder]).requires_grad_(True).train()
        self._averaged = copy.deepcopy(self._networks).requires_grad_(False)
        self._log_weight = torch.tensor(CODE_WEIGHT, device=device).log()
        self._optimizer = torch.optim.AdamW(
            self._networks.parameters(), lr=CODE_LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(1, self._num_code_updates))
        self._generator = torch.Generator(device).manual_seed(seed)
        self._flow_training: FlowTraining | None = None
        self._codes: tuple[torch.Tensor, torch.Tensor] | None = None
        self._heldout = None if learning.heldout is None else components.normalised(learning.heldout.to(device))
        self.losses: list[torch.Tensor] = []

    def update(self) -> None:
        if len(self.losses) < self._num_code_updates:
            self._update_code()
        else:
            flow = self._flow()
            flow.update()
            self.losses.append(flow.losses[-1])

    def _update_code(self) -> None:
        learning, prior, device = self._learning, self.prior, self._latents.device
        batch_size = max(1, learning.batch_size // BATCH_RATIO)
        chosen = torch.randint(len(self._latents), (batch_size,), generator=self._generator, device=device)
        latents = self._latents[chosen]
        with torch.autocast(device.type, torch.bfloat16, enabled=learning.in_bfloat16):
            mean, logvar = prior.posterior(latents)
            code = _drawn(mean, logvar, self._generator)
            expected = prior.expected(code)
            error = LATENTS_WEIGHT * (expected - latents).square().mean(1)
            if learning.image_error is not None:
                error = error + learning.image_error(
                    self._components.denormalised(expected), self._components.denormalised(latents)
                )
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        loss = self._log_weight.exp() * error.mean() + kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._networks.parameters(), 2000.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        with torch.no_grad():
            self._log_weight += WEIGHT_RATE * (1 - kl / prior.code_nats).clamp(-1, 1)
        move_average(self._averaged.state_dict(), self._networks.state_dict(), len(self.losses), CODE_AVERAGE_DECAY)
        self.losses.append(loss.detach() / prior.latent_dim)

    def _flow(self) -> FlowTraining:
        """The training of the flow, which starts when the code is learned."""
        if self._flow_training is None:
            self._finish_code()
            num_updates = max(1, self._learning.num_updates - self._num_code_updates)
            self._flow_training = FlowTraining(
                self.prior.flow, self._draw, num_updates, self._seed, self._learning, self._known()
            )
        return self._flow_training

    @torch.no_grad()
    def _known(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The rest and the condition of the held-out latents, as `_draw` gives them."""
        codes = self._heldout_codes()
        if self._heldout is None or codes is None:
            return None
        return self._rest_given(self._heldout, codes)

    @torch.no_grad()
    def _finish_code(self) -> None:
        """Gives the code's networks their averaged weights, and fits the Gaussians of the code and of the rest."""
        prior = self.prior
        self._networks.load_state_dict(self._averaged.state_dict())
        self._networks.eval().requires_grad_(False)
        parts = [prior.posterior(some) for some in self._latents.split(CODE_ENCODE_BATCH)]
        mean, logvar = (torch.cat(part) for part in zip(*parts, strict=True))
        self._codes = mean, logvar
        codes = _drawn(mean, logvar, torch.Generator(mean.device).manual_seed(self._seed))
        prior.code.fit(codes)
        self._fit_mixture(codes)
        rests = torch.cat(
            [
                latents - prior.expected(code)
                for latents, code in zip(
                    self._latents.split(CODE_ENCODE_BATCH), codes.split(CODE_ENCODE_BATCH), strict=True
                )
            ]
        )
        prior.shift.copy_(rests.mean(0))
        prior.scale.copy_(rests.std(0).clamp(min=1e-6))
        prior.flow.start_from((rests - prior.shift) / prior.scale)

    @torch.no_grad()
    def _fit_mixture(self, codes: torch.Tensor) -> None:
        """Fits the mixture to codes `(N, code_dim)`. Held-out latents choose its number of Gaussians."""
        prior = self.prior
        if prior.mixture is None:
            return
        known = self._heldout_codes()
        known = None if known is None else prior.code.coordinates(known)
        prior.mixture.fit(prior.code.coordinates(codes), known, self._seed)

    @torch.no_grad()
    def _heldout_codes(self) -> torch.Tensor | None:
        """A draw of the code of each held-out image `(M, code_dim)`. Its noise is not that of any training image, and
        is the same in a training that is resumed."""
        if self._heldout is None:
            return None
        mean, logvar = self.prior.posterior(self._heldout)
        return _drawn(mean, logvar, torch.Generator(mean.device).manual_seed(self._seed + 1))

    @torch.no_grad()
    def _draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The normalised rest of so many latents and, as the condition, what a draw of their code leads to expect."""
        assert self._codes is not None
        device = self._latents.device
        chosen = torch.randint(len(self._latents), (count,), generator=generator, device=device)
        mean, logvar = (part[chosen] for part in self._codes)
        return self._rest_given(self._latents[chosen], _drawn(mean, logvar, generator))

    def _rest_given(self, latents: torch.Tensor, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What normalised `latents` (B, Z) have beyond those that their `code` leads to expect, normalised, and
        these."""
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=self._learning.in_bfloat16):
            expected = self.prior.expected(code)
        return (latents - expected - self.prior.shift) / self.prior.scale, expected

    def finish(self) -> None:
        """Leaves the prior as samples are drawn from it."""
        flow = self._flow()
        flow.finish(self.prior.guidance)
        self.kept = None if flow.kept is None else self._num_code_updates + flow.kept
        self.prior.eval().requires_grad_(False)

    def state(self) -> dict[str, Any]:
        return {
            "networks": self._networks.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "log_weight": self._log_weight,
            "generator": self._generator.get_state(),
            "losses": torch.stack(self.losses),
            "flow": None if self._flow_training is None else self._flow_training.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in (
            ("networks", self._networks),
            ("averaged", self._averaged),
            ("optimizer", self._optimizer),
            ("schedule", self._schedule),
        ):
            part.load_state_dict(state[name])
        self._log_weight.copy_(state["log_weight"])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"].to(self._latents.device))
        if state["flow"] is not None:
            self._flow().restore(state["flow"])


def _drawn(mean: torch.Tensor, logvar: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A draw from N(mean, exp(logvar)), `(B, code_dim)`."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return mean + torch.exp(0.5 * logvar) * noise


def _length(rest: torch.Tensor) -> torch.Tensor:
    """The root mean square of `rest` (..., Z): `(..., 1)`."""
    return rest.square().mean(-1, keepdim=True).sqrt()


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


def _scales(size: int, width: int) -> list[tuple[int, int]]:
    """Edge and channels of a grid at each scale. It is halved while it is even, down to 4 cells."""
    scales, widest = [(size, width)], MAX_WIDENING * width
    while size > COARSEST and size % 2 == 0:
        size, width = size // 2, min(2 * width, widest)
        scales.append((size, width))
    return scales


def _grid_encoder(channels: int, size: int, outputs: int, width: int) -> nn.Sequential:
    """Latents on a grid `(B, C, S, S)` to `(B, outputs)`."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), ResidualBlock(width), ResidualBlock(width)]
    for coarse_size, coarse in _scales(size, width)[1:]:
        layers += [nn.Conv2d(width, coarse, 4, stride=2, padding=1), ResidualBlock(coarse)]
        size, width = coarse_size, coarse
    layers += [nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Flatten(), nn.Linear(width * size**2, outputs)]
    return nn.Sequential(*layers)


def _grid_decoder(channels: int, size: int, inputs: int, width: int) -> nn.Sequential:
    """`(B, inputs)` to latents on a grid `(B, C, S, S)`."""
    (size, width), *finer = reversed(_scales(size, width))
    layers: list[nn.Module] = [nn.Linear(inputs, width * size**2), nn.Unflatten(1, (width, size, size))]
    layers += [ResidualBlock(width), ResidualBlock(width)]
    for _, fine in finer:
        layers += upsampling(width, fine)
        layers += [ResidualBlock(fine), ResidualBlock(fine)]
        width = fine
    layers += [nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)]
    return nn.Sequential(*layers)


"""The standard normal distribution."""

from collections.abc import Sequence

import torch



class StandardPrior(Prior):
    """N(0, I): the distribution that a GAN is trained on, and the one that a VAE's posterior is pulled towards."""

    title = "N(0, I)"
    is_fitted = False
    needs_encoder = False
    preview_kind = "standard"

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    @property
    def noise_sizes(self) -> list[int]:
        return [self.latent_dim]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        return noise[0]


"""The priors of a model: the one table of them, and the module that holds those of one model."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor



PRIORS: dict[str, type[Prior]] = {
    "code": CodePrior,
    "flow": FlowPrior,
    "mixture": MixturePrior,
    "gaussian": GaussianPrior,
    "standard": StandardPrior,
}

LINE, CIRCLE, CODE = "lerp", "slerp", "code"
PATHS = (LINE, CIRCLE, *(kind for kind, prior in PRIORS.items() if prior.is_invertible))

if TYPE_CHECKING:  # type checkers read only literals that are written out
    PriorKind = str
    DecoderPriorKind = str
    PathKind = str
else:
    PriorKind = Literal[tuple(PRIORS)]
    # of a family without an encoder, whose latents are N(0, I)
    DecoderPriorKind = Literal[tuple(kind for kind, prior in PRIORS.items() if not prior.needs_encoder)]
    PathKind = Literal[PATHS]


def priors_of(own: str, has_encoder: bool) -> list[str]:
    """The priors that a model's samples can usefully be drawn from, given its own one: more than that only where there
    were encoded images to fit them to."""
    return [kind for kind, prior in PRIORS.items() if kind == own or (has_encoder and not prior.is_learned)]


class LatentPrior(PrincipalComponents):
    """What a model knows of its latents `(B, Z)`: their principal components, and the priors that samples are drawn
    from. It holds every prior of `PRIORS` except those that take training updates; of these it holds the model's own.

    Args:
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid that they lie on; 1 for latents without a grid.
        kind: The model's own prior.
        sizes: Sizes of the priors, by the names of their arguments. Other names are ignored, so that a model's whole
            configuration can be passed. Sizes that are missing have their defaults.
    """

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        kind: str = "standard",
        sizes: Mapping[str, Any] | None = None,
    ):
        sizes = sizes or {}
        super().__init__(latent_dim, sizes.get("num_directions", NUM_DIRECTIONS))
        self.kind = kind
        self._sizes = {**sizes, "latent_dim": latent_dim, "latent_size": latent_size}
        for name, prior in PRIORS.items():
            if name == kind or not prior.is_learned:
                self.add_module(name, self._new(name))

    def _new(self, kind: str) -> Prior:
        arguments = inspect.signature(PRIORS[kind].__init__).parameters
        return PRIORS[kind](**{name: value for name, value in self._sizes.items() if name in arguments})

    @property
    def kinds(self) -> list[str]:
        """The priors that are there, in the order of `PRIORS`."""
        return [kind for kind in PRIORS if getattr(self, kind, None) is not None]

    @property
    def paths(self) -> list[str]:
        """The kinds of path that `path` can take."""
        return [kind for kind in PATHS if kind not in PRIORS or kind in self.kinds]

    @property
    def default_path(self) -> str:
        """The kind of path that is taken unless another one is asked for: through the code where there is one. Among
        the others, most shipped models generate sharper images halfway on the circle than on the line."""
        return CODE if CODE in self.kinds else CIRCLE

    @property
    def sliders(self) -> PrincipalComponents:
        """What `move` moves along: the principal components of the code where there is one, else those of the
        latents."""
        code = self._modules.get(CODE)
        return code.code if isinstance(code, CodePrior) else self

    def get(self, kind: str) -> Prior:
        """The prior of a kind.

        Raises:
            ValueError: If there is no such kind, or this model has no prior of it.
        """
        if kind not in PRIORS:
            raise ValueError(f"prior={kind!r} is unknown; choose one of {', '.join(PRIORS)}.")
        if kind not in self.kinds:
            raise ValueError(f"prior={kind!r} is not possible: this model has no {kind} prior. {_choose(self.kinds)}")
        return getattr(self, kind)

    def drop_learned(self) -> None:
        """Removes the priors that take training updates. `fit_priors` makes the model's own one again."""
        for kind in self.kinds:
            if PRIORS[kind].is_learned:
                delattr(self, kind)

    def fit_priors(self, latents: torch.Tensor, seed: int = 0, learning: Learning | None = None) -> None:
        """Fits the principal components and every prior to `latents` (N, Z). A prior that takes training updates is
        fitted if `learning` says how.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        self.fit(latents)
        if learning is not None and self.kind not in self.kinds:
            self.add_module(self.kind, self._new_without_a_trace().to(self.mean.device))
        for kind in self.kinds:
            if learning is not None or not PRIORS[kind].is_learned:
                getattr(self, kind).fit(latents, self, seed, learning or Learning())

    def _new_without_a_trace(self) -> Prior:
        """A new prior of the model's own kind, without a change of the global random state."""
        with torch.random.fork_rng(devices=[]):
            return self._new(self.kind)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        kind: str = "gaussian",
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        code: tuple[torch.Tensor, torch.Tensor] | None = None,
        rest_temperature: float | None = None,
    ) -> torch.Tensor:
        """Draws latents `(num_samples, Z)`.

        Args:
            num_samples: How many.
            kind: The prior to draw from, one of `kinds`.
            generator: Source of the noise, see `draw_noise`.
            temperature: Scale of the noise. At 0 a Gaussian gives its mean, a mixture the mean of one of its
                Gaussians, and a flow the latents of zero noise.
            num_steps: Number of steps of a flow. Other priors ignore it.
            guidance: Strength of what a flow's network adds to its Gaussian; the model's own if None. Other priors
                ignore it.
            code: The Gaussian to draw the code from, in place of its mixture: its mean `(code_dim,)` and a root R
                `(code_dim, code_dim)` of its covariance R R^T, along the principal components of the code, in
                standard deviations.
            rest_temperature: Scale of the noise of what the code does not say; the model's own if None.

        Raises:
            ValueError: If the model has no prior of this kind, `num_samples` or `num_steps` is below 1, or
                `rest_temperature` is below 0. If there is a `code` or a `rest_temperature` and another kind.
        """
        if code is not None and kind != CODE:
            raise ValueError(f"prior={kind!r} draws no code, which labels are given by; draw from the prior {CODE!r}.")
        if num_samples < 1:
            raise ValueError(f"{num_samples} samples cannot be drawn; ask for at least 1.")
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} is not possible; it must be at least 1.")
        prior = self.get(kind)
        scales = prior.noise_scales
        if rest_temperature is not None:
            if not isinstance(prior, CodePrior):
                raise ValueError(
                    f"rest_temperature={rest_temperature} is not possible with prior={kind!r}, which draws no code; "
                    f"draw from the prior {CODE!r}, or set temperature."
                )
            scales = prior.noise_scales_at(rest_temperature)
        parts = self.draw_noise(num_samples, kind, generator)
        noise = [scale * part for part, scale in zip(parts, scales, strict=True)]
        num_scaled = len(noise) - prior.num_choices
        noise = [temperature * part for part in noise[:num_scaled]] + noise[num_scaled:]
        if code is not None:
            mean, root = (part.to(noise[0]) for part in code)
            noise = noise[:num_scaled]  # no Gaussian of the mixture is chosen
            noise[::2] = [mean + position @ root.T for position in noise[::2]]  # of each draw
        return prior.from_noise(noise, self, num_steps, guidance=guidance)

    def draw_noise(
        self,
        num_samples: int,
        kind: str,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> list[torch.Tensor]:
        """Noise of N(0, 1) that the prior `kind` makes so many samples from: a part `(num_samples, size)` for each of
        its `noise_sizes`. All parts of a sample are drawn before those of the next. So the first samples of a
        generator are the same, however many follow.

        Args:
            num_samples: How many.
            kind: One of `kinds`.
            generator: One generator, or one for each sample; the global one if None. One of the CPU gives the same
                noise on any device.

        Raises:
            ValueError: If the model has no prior of this kind, or there are several generators, but not `num_samples`.
        """
        if isinstance(generator, list) and len(generator) != num_samples:
            raise ValueError(
                f"{len(generator)} generators cannot draw {num_samples} samples; pass one, or one for each."
            )
        generators: list[torch.Generator | None] = (
            [*generator] if isinstance(generator, list) else [generator] * num_samples
        )
        sizes, device, dtype = self.get(kind).noise_sizes, self.mean.device, torch.float32  # half draws other numbers
        drawn = [[randn_tensor((1, size), each, device, dtype) for size in sizes] for each in generators]
        return [torch.cat(part).to(self.mean.dtype) for part in zip(*drawn, strict=True)]

    @torch.no_grad()
    def path(
        self,
        starts: torch.Tensor,
        ends: torch.Tensor,
        num_points: int,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> torch.Tensor:
        """Evenly spaced points from `starts` (..., Z) to `ends` (..., Z), both included: `(..., num_points, Z)`.

        "lerp" is the straight line. "slerp" is the great circle around `mean`, with each latent in standard
        deviations. The name of a prior, such as "flow", is the great circle between the noises that this prior makes
        the two from. Every point of it is as likely as the ends, and is not a double exposure of both. "code" is one
        of these, with a circle for the code and another for the noise of the rest. Midway, the root mean square of
        this noise is at least 0.85, or less if the flow narrows latents. Guidance plays no part in it.

        Args:
            starts: Latents.
            ends: As many latents.
            num_points: Number of points, at least 2.
            kind: One of `paths`; `default_path` if None.
            num_steps: Number of steps of a flow, there and back.

        Raises:
            ValueError: If the model has no such path, or `num_points` is below 2.
        """
        if num_points < 2:
            raise ValueError(f"A path needs at least 2 points; got {num_points}.")
        kind = kind or self.default_path
        if kind not in PATHS:
            raise ValueError(f"Interpolation {kind!r} is unknown; choose one of {', '.join(PATHS)}.")
        if kind not in self.paths:
            raise ValueError(
                f"Interpolation {kind!r} is not possible: this model has no {kind} prior. {_choose(self.paths)}"
            )
        weights = torch.linspace(0, 1, num_points, device=starts.device)[:, None]  # (num_points, 1)
        starts, ends = starts[..., None, :], ends[..., None, :]  # (..., 1, Z)
        if kind == LINE:
            return torch.lerp(starts, ends, weights)
        if kind == CIRCLE:
            return self.denormalised(slerp(self.normalised(starts), self.normalised(ends), weights))
        prior = self.get(kind)
        # without guidance, which makes the noise of an image longer than that of N(0, I), and the middle too sharp
        parts = zip(*(prior.to_noise(latents, self, num_steps, 1.0) for latents in (starts, ends)), strict=True)
        noise = [slerp(first, last, weights) for first, last in parts]
        if isinstance(prior, CodePrior):
            noise[1] = prior.no_softer(noise[1], 1 - (2 * weights - 1).abs())
        points = prior.from_noise(noise, self, num_steps, guidance=1.0)
        # there and back in steps is not quite the identity: the error at either end is subtracted
        points = points + torch.lerp(starts - points[..., :1, :], ends - points[..., -1:, :], weights)
        return torch.cat([starts, points[..., 1:-1, :], ends], -2)

    @torch.no_grad()
    def noise_of_code(self, latents: torch.Tensor, num_steps: int = DEFAULT_STEPS) -> list[torch.Tensor] | None:
        """The noise of latents `(B, Z)` that `move` starts from, for latents that move several times; None if there is
        no code."""
        return self.get(CODE).to_noise(latents, self, num_steps) if CODE in self.kinds else None

    @torch.no_grad()
    def move(
        self,
        latents: torch.Tensor,
        shifts: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Moves latents `(B, Z)`, or one `(1, Z)` for all, along the first K components of `sliders` by `shifts`
        (B, K), in standard deviations: `(B, Z)`. With a code, the rest is drawn again for the moved code, from
        the same noise, which becomes like that of samples as the shift grows. `noise` is what `noise_of_code`
        gave for these latents and steps, if it is at hand: finding it is about half of the work."""
        shifts = shifts.to(latents)
        count = shifts.shape[1]
        prior = self._modules.get(CODE)
        if prior is None:
            return latents + (shifts * self.stds[:count]) @ self.directions[:count]
        assert isinstance(prior, CodePrior)
        code, rest = noise or prior.to_noise(latents, self, num_steps)
        size = max(len(latents), len(shifts))
        shifts = shifts.expand(size, -1)
        moved = code.expand(size, -1) + F.pad(shifts, (0, code.shape[1] - count))
        as_far = 1 - torch.exp(-shifts.square().sum(1, keepdim=True) / 2)  # from 0 to 1
        noises = torch.cat([prior.like_samples(rest, as_far), rest])
        codes = torch.cat([moved, code])
        drawn, as_before = prior.from_noise([codes, noises], self, num_steps).tensor_split([size])
        return latents + drawn - as_before  # as on a path: without a shift, latents stay as they are


def _choose(names: list[str]) -> str:
    return f"Choose {', '.join(names[:-1])} or {names[-1]}." if len(names) > 1 else f"Choose {names[0]}."


"""The code that travels with the weights: a model's module and all that it is built from, as one file."""

import json
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path

from diffusers import __version__ as diffusers_version


RELATIVE_IMPORT = re.compile(r"^from (\.+\w+) import (?:\([^)]*\)|.*)\n", re.MULTILINE)
PIPELINE_MODULE, PIPELINE_CLASS = "diffusers_pipeline", "ImageGenerationPipeline"
PIPELINE_CONFIG = "model_index.json"  # as diffusers calls it


def standalone_source(module_name: str) -> str:
    """The source of an imported module and of the pipeline around it, after that of every module that they import
    relatively, sub-packages included: one file that imports only libraries. It is one file because diffusers follows
    the imports of a folder's first file no further, and on the Hub asks again for each of them."""
    module = sys.modules[module_name]
    if module.__file__ is None:
        raise ValueError(f"{module_name} has no file, and so no source that can travel with the weights.")
    seen: set[str] = set()
    sources = [*_sources(module_name, Path(module.__file__), seen)]
    if Path(__file__).with_name(f"{PIPELINE_MODULE}.py").is_file():  # else this is such a file, and has the pipeline
        sources += _sources_of(f"{__package__}.{PIPELINE_MODULE}", seen)
    return "\n\n".join(sources)


def pipeline_config(module: str, class_name: str) -> str:
    """The content of `model_index.json` for a class in `module`.py, which diffusers' `DiffusionPipeline` reads. It has
    to name a library for the class, and would look for a module of ours in a folder; the pipeline knows better."""
    config = {
        "_class_name": [module, PIPELINE_CLASS],
        "_diffusers_version": diffusers_version,
        "model": ["diffusers", class_name],
    }
    return json.dumps(config, indent=2) + "\n"


def _sources(module_name: str, file: Path, seen: set[str]) -> Iterator[str]:
    seen.add(module_name)
    source = file.read_text()
    package = module_name if file.name == "__init__.py" else module_name.rpartition(".")[0]
    for name in RELATIVE_IMPORT.findall(source):
        imported = resolve_name(name, package)
        if imported not in seen:
            yield from _sources_of(imported, seen)
    yield RELATIVE_IMPORT.sub("", source)


def _sources_of(module_name: str, seen: set[str]) -> Iterator[str]:
    spec = find_spec(module_name)
    assert spec is not None and spec.origin is not None, module_name
    yield from _sources(module_name, Path(spec.origin), seen)


"""The contract of every family: images to flat latents and back, and samples from the prior inside the model."""

import inspect
import os
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import CONFIG_NAME, BaseOutput
from safetensors.torch import load_file



if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


FITTED_PARTS = ("latent_prior", "detail")  # of a model: what is fitted once its networks are trained
ROUND_TRIP_BATCH = 64  # images


@dataclass
class EncoderOutput(BaseOutput):
    """What `encode` returns.

    Args:
        latents: The latents of each image, `(B, Z)`, without noise: the posterior mean where there is a posterior. In
            a model with residual latents these follow, `(B, Z + D)`.
        logvar: Log-variance of the posterior around the first Z latents, `(B, Z)`, or None in a family without a
            posterior. Residual latents have no variance.
        latent_shape: The shape of these Z latents on their grid, `ImageGenerator.latent_shape`, where there is a
            posterior.
    """

    latents: torch.Tensor
    logvar: torch.Tensor | None = None
    latent_shape: tuple[int, int, int] | None = None

    @property
    def latent_dist(self) -> "DiagonalGaussianDistribution":
        """The posterior, as diffusers' autoencoders return it. `sample(generator)` and `mode()` give latents
        `(B, Z / S^2, S, S)` on the grid of S x S cells, `(B, Z, 1, 1)` without a grid; `decode` takes these too.
        Residual latents are not part of it.

        Raises:
            AttributeError: In a family without a posterior.
        """
        if self.logvar is None or self.latent_shape is None:
            raise AttributeError("This family has no posterior: take `latents`.")
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution  # the import takes a second

        mean = self.latents[:, : self.logvar.shape[1]]
        parameters = [values.unflatten(1, self.latent_shape) for values in (mean, self.logvar)]
        return DiagonalGaussianDistribution(torch.cat(parameters, 1))


@dataclass
class DecoderOutput(BaseOutput):
    """The output of `decode`. diffusers' class of this name is the same, but its import takes a second.

    Args:
        sample: Images `(B, C, H, W)`, in [-1, 1] up to what the network overshoots.
    """

    sample: torch.Tensor


class ImageGenerator(ModelMixin, ConfigMixin):  # type: ignore[misc]  # the two disagree about config_name
    """A small image generator with a latent space you can explore by hand.

    Images are `(B, C, H, W)` floats in [-1, 1]. Latents are flat, `(B, Z)`. A family's `__init__` signature is its
    configuration. It has at least `image_size`, `image_channels`, `latent_dim`, `output_size` and `prior`, and builds
    `self.decoder` and, if the family encodes, `self.encoder`. The `LatentPrior` is a part of the model, so that
    `config.json` and one safetensors file are the whole model. A family may also have `self.detail`, whose residual
    latents follow the Z that the networks know, `(B, Z + D)`. `decode` takes latents with or without them; samples
    have none. `forward` is the training path, and returns every tensor that the family's objective needs.

    Args:
        image_size: Edge of the square images that the network works at, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid of cells that the latents lie on, where each cell sees its own part of the image.
            1 for latents without a grid, each of which describes the whole image.
        width: Channels at the finest scale; doubled at each coarser one.
        max_width: Maximum number of channels.
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (4x4 strided and transposed convolutions
            and BatchNorm).
        shortcut: Add a linear path from each cell's pixels to its latents and back, in parallel with the networks.
            Plain blocks, and latents without a grid, have none.
        detail_dim: Number of residual latents, which store the part of an encoded image that the networks miss, by a
            linear map of each cell of the grid. They are fitted after training, and samples have none. 0 for none.
        output_size: Edge of the generated images, in pixels, if it differs from image_size.
        prior: The distribution that samples are drawn from. It is fitted after training: "code" (a few numbers for the
            whole image, which sliders move, and a network that draws the latents given these), "flow" (a network that
            draws the latents), "mixture" (of Gaussians) or "gaussian". "standard" is N(0, I) and is not fitted.
        code_dim: Numbers in the code.
        code_nats: Information of the code about an image, in nats.
        code_gaussians: Maximum number of Gaussians that the code is drawn from. They share a covariance.
        code_width: Channels of the code's networks, at the scale of the grid.
        rest_temperature: Scale of the noise in samples that what the code does not say is drawn from. Below 1, samples
            are whole more often, and softer.
        rest_limit: Root mean square of this rest, in standard deviations, above which a sample is drawn a second time.
            The shorter rest stays: malformed samples have the longest. None draws every sample once.
        rest_margin: Rings of cells at the edge of the grid that `rest_limit` leaves out, as they show background.
        guidance: Strength of what a flow's network adds to its Gaussian when samples are drawn. Above 1 they are more
            typical, below 1 more varied. None for the prior's own, 2.5 of "code" and 1 of "flow".
        guidance_rescale: How much of the length that guidance adds to the latents of samples is taken away again, from
            0 for none to 1 for all.
        num_directions: Maximum number of principal components, which sliders move along.
        num_gaussians: Maximum number of Gaussians in the mixture prior.
        flow_width: Channels of the flow's UNet at its finest scale, for latents on a grid.
        flow_mlp_width: Features of the flow's MLP, for latents without a grid.
        flow_depth: Residual blocks at each scale of the flow's UNet; its MLP has twice as many.
        flow_directions: Maximum number of principal components of the Gaussian that the flow starts from.
        round_trips: How many times the latents of a sample are decoded, and this image encoded, before the final image
            is decoded. Where the prior drew half of a shape, the encoder reads a whole one. It helps with latents that
            hold few nats, and costs a little variety.
        encoder_layers: The encoder layer by layer, see `hf_vae.models.listed_layers`. It replaces width, max_width,
            block, shortcut and latent_size.
        decoder_layers: The same for the decoder.
    """

    has_encoder: ClassVar[bool] = True
    main_input_name = "images"  # of `forward`, for diffusers' tools
    _supports_gradient_checkpointing = True  # in the residual blocks
    config: Any  # the arguments of `__init__`, as keys and as attributes
    decoder: torch.nn.Module

    if TYPE_CHECKING:  # diffusers wraps it so that a type checker loses its type

        def to(self, *args: Any, **kwargs: Any) -> Self: ...  # type: ignore[override]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # only of our own modules is it known that they can travel; a class of a notebook stays where it is
        cls._auto_class = "AutoModel" if cls.__module__.rpartition(".")[0] == __package__ else None

    def __init__(self, latent_dim: int, latent_size: int = 1, prior: str = "standard"):
        super().__init__()
        self.register_to_config(**{VERSION_KEY: FORMAT_VERSION})
        if self.num_round_trips < 0:
            raise ValueError(f"round_trips={self.num_round_trips} is not possible; it must be at least 0.")
        self._latent_size = latent_size
        self.latent_prior = LatentPrior(latent_dim, latent_size, prior, self.config)
        self.detail: Detail | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # of diffusers' classes, which also take None
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> Self:
        """Loads a model from a folder or a Hub id, in evaluation mode. It works as in diffusers' models, but reads
        only safetensors, and only a model as this class, or an earlier version of it, writes it. No code of the folder
        is run.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            kwargs: Those of diffusers' `from_pretrained`. The whole model goes to the one device of `device_map`;
                "auto" is the accelerator, if there is one.

        Raises:
            LoadError: If there is no such model, it is of another class or a newer format, or its configuration or
                weights are incomplete, too large or not finite; see `hf_vae.models.loading`. If `device_map` does not
                name one device of this machine. It is a `ValueError` and, as diffusers' error, an `OSError`.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise LoadError("use_safetensors=False is not possible: a pickle can hold any program.")
        device_map = kwargs.pop("device_map", None)
        device = None if device_map is None else device_of_map(device_map)
        folder = checked_folder(cls, pretrained_model_name_or_path, **kwargs)
        options = {name: value for name, value in kwargs.items() if name not in (*HUB_OPTIONS, "subfolder")}
        if cls._keep_in_fp32_modules is None:  # diffusers needs it for these
            # it would need accelerate, and spares small networks nothing
            options.setdefault("low_cpu_mem_usage", False)
        loaded = super().from_pretrained(folder, use_safetensors=True, **options)
        model: Self = loaded[0] if isinstance(loaded, tuple) else loaded
        is_here = Path(os.path.expanduser(pretrained_model_name_or_path)).is_dir()
        # what the next config.json says: a Hub id, or the name of a folder without its path on this machine
        model.register_to_config(
            _name_or_path=folder.resolve().name if is_here else str(pretrained_model_name_or_path)
        )
        model.register_latent_statistics()
        model = model if device is None else model.to(device)
        # with output_loading_info, as diffusers returns it
        return (model, *loaded[1:]) if isinstance(loaded, tuple) else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Saves the model to a folder as diffusers' models do, and the code that it needs beside the weights. Where
        this package is not installed, diffusers' `AutoModel` loads the folder with `trust_remote_code=True`."""
        save_directory = os.path.expanduser(save_directory)
        self.register_latent_statistics()
        if is_main_process and self._auto_class:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.save_source(Path(save_directory))
        if is_main_process:  # diffusers leaves it, and would look for the files that it removes
            Path(save_directory, index_name(kwargs.get("variant"))).unlink(missing_ok=True)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            for weights in Path(save_directory).glob("diffusion_pytorch_model*.safetensors"):
                shutil.copymode(Path(save_directory, CONFIG_NAME), weights)  # made for its owner alone by safetensors

    def register_latent_statistics(self) -> None:
        """Writes to the configuration what diffusers' autoencoders say there of their latents: `latents_mean` and
        `latents_std` of each channel of the grid, or of each latent without a grid. They are those of the latents that
        the prior was fitted to. `(latents - latents_mean) / latents_std` has a mean of 0 and a variance of 1, so
        `scaling_factor` is 1. A family without an encoder has none of these."""
        if self.has_encoder:
            mean, variances = (
                values.float().unflatten(0, (self.latent_shape[0], -1))
                for values in (self.latent_prior.mean, self.latent_prior.variances)
            )
            variance = variances.mean(1) + mean.var(1, correction=0)
            rounded = ([round(value, 6) for value in values.tolist()] for values in (mean.mean(1), variance.sqrt()))
            self.register_to_config(**dict(zip(LATENT_STATISTICS, (*rounded, 1.0), strict=True)))

    @classmethod
    def save_source(cls, folder: Path) -> None:
        """Writes only that code, under the name that diffusers writes into `config.json`, and the `model_index.json`
        that `DiffusionPipeline.from_pretrained` reads."""
        module = cls.__module__.rpartition(".")[2]
        (folder / f"{module}.py").write_text(standalone_source(cls.__module__))
        (folder / PIPELINE_CONFIG).write_text(pipeline_config(module, cls.__name__))

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers', without the Hub client's warning about an argument that diffusers itself passes."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")
            return super().load_config(*args, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """As diffusers', for a configuration of any format version. diffusers would warn of `auto_map`, which is for
        `AutoModel` alone."""
        config_dict = upgraded_config(config_dict, inspect.signature(cls.__init__).parameters)
        known = {name: value for name, value in config_dict.items() if name not in ("auto_map", *LATENT_STATISTICS)}
        return super().extract_init_dict(known, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's, for weights of any format version."""
        return super().load_state_dict(self._upgraded(state_dict), *args, **kwargs)

    @classmethod
    def _load_pretrained_model(  # type: ignore[override]  # named as diffusers passes them
        cls, model: Self, state_dict: dict[str, torch.Tensor] | None, files: list[str], *args: Any, **kwargs: Any
    ) -> Any:
        """What diffusers calls to fill a model. Weights in several files are joined first, because diffusers renames
        those of an earlier format version only in one."""
        if state_dict is None:
            state_dict = {name: weight for file in files for name, weight in load_file(file).items()}
            model._fix_state_dict_keys_on_load(state_dict)
            path, _, *args = args  # type: ignore[assignment]
            args = (path, list(state_dict), *args)
        return super()._load_pretrained_model(model, OrderedDict(state_dict), files[:1], *args, **kwargs)

    def _fix_state_dict_keys_on_load(self, state_dict: dict[str, torch.Tensor]) -> None:
        """What diffusers calls on the weights that it read: renames those of an earlier format version, in place."""
        upgraded = dict(self._upgraded(state_dict))
        state_dict.clear()
        state_dict.update(upgraded)

    def _upgraded(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return upgraded_weights(weights, version_of({}, weights.keys()), self.state_dict())

    @property
    def num_latents(self) -> int:
        """Number of latents that `encode` gives: `latent_dim`, and the residual ones where a family has them. `decode`
        takes as many, or `latent_dim`."""
        return self.config.latent_dim + (0 if self.detail is None else self.detail.detail_dim)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The shape of an image's latents on their grid, `(Z / S^2, S, S)`; `(Z, 1, 1)` without a grid. Flat latents
        `(B, Z)` are these, flattened."""
        size = self._latent_size
        return (self.config.latent_dim // size**2, size, size)

    @property
    def priors(self) -> list[str]:
        """The priors that samples can usefully be drawn from, in the order of `PRIORS`."""
        return [kind for kind in priors_of(self.config.prior, self.has_encoder) if kind in self.latent_prior.kinds]

    @property
    def output_size(self) -> int:
        """Edge in pixels of the generated images: the network's own `image_size`, unless configured."""
        return self.config.output_size or self.config.image_size

    def encode(self, images: torch.Tensor, return_dict: bool = True) -> EncoderOutput:
        """Images `(B, C, H, W)` in [-1, 1] to `EncoderOutput`. Without `return_dict`, to a tuple, as in diffusers: of
        the posterior, or of the latents in a family without one.

        Raises:
            ValueError: If the family has no encoder (`has_encoder`).
        """
        output = self._encode(images)
        if return_dict:
            return output
        return (output.latents if output.logvar is None else output.latent_dist,)  # type: ignore[return-value]

    def _encode(self, images: torch.Tensor) -> EncoderOutput:
        """What `encode` returns, of a family that has an encoder."""
        raise ValueError(f"{type(self).__name__} has no encoder: it can generate images, but not encode them.")

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput:
        """Latents to `DecoderOutput`, or to a tuple without `return_dict`. Its `sample` is `(B, C, H, W)`, in [-1, 1]
        except where the network overshoots.

        Args:
            latents: `(B, Z)`, the same on their grid `(B, *latent_shape)`, or with residual latents `(B, Z + D)`.
            return_dict: Return an output of diffusers' kind, not a tuple.

        Raises:
            ValueError: If they have another shape.
        """
        flat = latents.flatten(1) if tuple(latents.shape[1:]) == self.latent_shape else latents
        size, count = self.config.latent_dim, self.num_latents
        if flat.ndim != 2 or flat.shape[1] not in (size, count):
            details = f", or (B, {count}) with residual latents" if count > size else ""
            grid = f", or on their grid (B, {', '.join(map(str, self.latent_shape))})"
            raise ValueError(f"Latents (B, {size}) are needed{grid}{details}; got {tuple(latents.shape)}.")
        images = self._decode(flat.to(self.dtype))
        return DecoderOutput(sample=images) if return_dict else (images,)  # type: ignore[return-value]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images of flat latents."""
        return self.decoder(latents)

    @torch.no_grad()
    def sample(
        self,
        num_images: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        rest_temperature: float | None = None,
    ) -> torch.Tensor:
        """Generates images `(num_images, C, H, W)` in [-1, 1].

        Args:
            num_images: How many.
            generator: Source of the latents' noise: one generator, or one for each image; the global one if None. The
                first images of a generator are the same, however many follow. One of the CPU gives the same images on
                any device.
            temperature: Scale of that noise. Below 1 samples are more typical and less varied.
            prior: The prior to draw latents from, one of `priors`; `config.prior` if None.
            num_steps: Number of steps from noise to latents, for a flow. Other priors ignore it.
            guidance: Strength of what a flow's network adds to its Gaussian; the model's own if None. Above 1
                samples are more typical. Other priors ignore it.
            rest_temperature: Scale of the noise of what the code does not say, such as skin and hair, for a prior with
                a code; the model's own if None. At 0.7, samples are softer, and fewer faces are malformed.

        Raises:
            ValueError: If the model has no such prior, `num_images` or `num_steps` is below 1, or there are several
                generators, but not one for each image. If `rest_temperature` is below 0, or the prior has no code.
        """
        latents = self.sample_latents(
            num_images, generator, temperature, prior, num_steps, guidance, rest_temperature=rest_temperature
        )
        return self.decode(latents).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def sample_latents(
        self,
        num_images: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        code: tuple[torch.Tensor, torch.Tensor] | None = None,
        rest_temperature: float | None = None,
    ) -> torch.Tensor:
        """Draws the latents `(num_images, Z)` of the images that `sample` generates: from the prior, and then as
        `after_round_trips` leaves them. `code` is that of `LatentPrior.sample`, the other arguments and errors are
        those of `sample`."""
        kind = prior or self.config.prior
        latents = self.latent_prior.sample(
            num_images, kind, generator, temperature, num_steps, guidance, code, rest_temperature
        )
        return torch.cat([self.after_round_trips(some) for some in latents.split(ROUND_TRIP_BATCH)])

    @property
    def num_round_trips(self) -> int:
        """`config.round_trips`, which a family without an encoder does not have: 0."""
        return self.config.get("round_trips", 0)

    def after_round_trips(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes latents `(B, Z)` and encodes the images again, without noise, `config.round_trips` times:
        `(B, Z)`."""
        for _ in range(self.num_round_trips):
            images = self.decode(latents).sample.clamp(-1, 1)
            latents = self.encode(images).latents[:, : self.config.latent_dim].to(latents.dtype)
        return latents

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Encodes images `(B, C, H, W)` in [-1, 1] without noise, and decodes them again.

        Raises:
            ValueError: If the family has no encoder, or `images` are not such a tensor.
        """
        return self.decode(self._latents_of(images)).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def interpolate(
        self,
        start: torch.Tensor,
        end: torch.Tensor,
        num_images: int = 8,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> torch.Tensor:
        """Morphs one image into another, along a path through latent space.

        Args:
            start: Image `(C, H, W)` in [-1, 1].
            end: Another one.
            num_images: Number of images, at least 2. The first and the last are the reconstructions of both.
            kind: The path, see `path`; the model's default if None.
            num_steps: Number of steps of a flow, see `path`.

        Returns:
            Images `(num_images, C, H, W)` in [-1, 1].

        Raises:
            ValueError: If the family has no encoder, the model has no such path, `num_images` is below 2, or `start`
                and `end` are not such tensors.
        """
        if num_images < 2:
            raise ValueError(f"A path needs at least 2 images; got {num_images}.")
        latents = torch.cat([self._latents_of(image, 3) for image in (start, end)])  # (2, Z)
        path = self.path(latents[0], latents[1], num_images, kind, num_steps)  # (num_images, Z)
        return self.decode(path).sample.float().clamp(-1, 1)

    def path(
        self,
        starts: torch.Tensor,
        ends: torch.Tensor,
        num_points: int,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> torch.Tensor:
        """Evenly spaced points from `starts` to `ends`, both `(..., Z)`, or `(..., Z + D)` with residual latents:
        `(..., num_points, Z)` or `(..., num_points, Z + D)`. The arguments are those of `LatentPrior.path`, which
        describes the kinds. Residual latents go along the straight line on all of them. Through the code they fade
        where the image differs from the end that they belong to.

        Raises:
            ValueError: As `LatentPrior.path` does.
        """
        size, kind = self.config.latent_dim, kind or self.latent_prior.default_path
        points = self.latent_prior.path(starts[..., :size], ends[..., :size], num_points, kind, num_steps)
        weights = torch.linspace(0, 1, num_points, device=starts.device)[:, None]  # (num_points, 1)
        first, last = (
            self._details(latents[..., None, :].expand(*points.shape[:-1], -1), points, kind == CODE)
            for latents in (starts, ends)
        )
        return torch.cat([points, torch.lerp(first, last, weights)], -1)

    @torch.no_grad()
    def move(
        self,
        latents: torch.Tensor,
        shifts: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Moves latents `(B, Z)` or `(B, Z + D)`, or one for all, by `shifts` (B, K), in standard deviations, along
        the first K components of `latent_prior.sliders`: see `LatentPrior.move`. Residual latents stay as they are.
        With a code they fade where the image changes."""
        size = self.config.latent_dim
        moved = self.latent_prior.move(latents[:, :size], shifts, num_steps, noise)
        has_code = CODE in self.latent_prior.kinds
        return torch.cat([moved, self._details(latents.expand(len(moved), -1), moved, has_code)], 1)

    def _details(self, latents: torch.Tensor, moved: torch.Tensor, fades: bool) -> torch.Tensor:
        """The residual latents in `latents` (..., Z + D), if there are any, for the image of `moved` (..., Z). If they
        fade, they fade where it differs from the image of `latents`."""
        before, details = latents.tensor_split([self.config.latent_dim], -1)
        if not fades or self.detail is None or not details.shape[-1]:
            return details
        images, changed = (self.decode(points.flatten(0, -2)).sample for points in (before, moved))
        return self.detail.faded(details.flatten(0, -2), changed - images).view(details.shape)

    def _latents_of(self, images: torch.Tensor, ndim: int = 4) -> torch.Tensor:
        """Images `(B, C, H, W)` in [-1, 1], or with `ndim` 3 one `(C, H, W)`, to latents `(B, Z)`. Others are refused:
        a network would also take bytes, and return noise."""
        size = (self.config.image_channels, self.config.image_size, self.config.image_size)
        is_float = isinstance(images, torch.Tensor) and images.is_floating_point()
        if self.has_encoder and not (is_float and images.ndim == ndim and images.shape[-3:] == size):
            of_shape = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images)
            raise ValueError(
                f"A float tensor ({'B, ' if ndim == 4 else ''}{', '.join(map(str, size))}) in [-1, 1] is needed; got "
                f"{of_shape}. hf_vae.ImagePipeline takes PIL images, paths and arrays of any size."
            )
        return self.encode(images if ndim == 4 else images[None]).latents


"""Networks that are defined layer by layer, as the recipe of a published system lists them."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn



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


"""The variational autoencoder."""

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput



# Standard deviations from 0.0067 to 7.4: never so wide that an overflow in half precision hides it.
LOGVAR_RANGE = (-10.0, 4.0)


@dataclass
class VAEOutput(BaseOutput):
    """What `VAE.forward` returns.

    Args:
        sample: Reconstructions `(B, C, H, W)`, under the name that they have in diffusers.
        mean: Mean of the posterior, `(B, Z)`.
        logvar: Its log-variance, `(B, Z)`.
        latents: The draw from the posterior that the reconstructions were decoded from, `(B, Z)`.
        samples: The images `(N, C, H, W)` of other latents, if any were passed.
    """

    sample: torch.Tensor
    # accelerate makes one from a dictionary, as its first argument; the others need a default for that
    mean: torch.Tensor = None  # type: ignore[assignment]
    logvar: torch.Tensor = None  # type: ignore[assignment]
    latents: torch.Tensor = None  # type: ignore[assignment]
    samples: torch.Tensor | None = None


class VAE(ImageGenerator):
    """A variational autoencoder (Kingma and Welling 2014): an encoder maps each image to a Gaussian in latent space,
    and a decoder reconstructs the image from a sample of that Gaussian. It reconstructs, interpolates and generates.
    Its images are smoother than photographs, because it decodes to the average of all images that fit the latents.

    Args: those of `ImageGenerator`.
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
        prior: PriorKind = "code",
        code_dim: int = 128,
        code_nats: float = 60.0,
        code_gaussians: int = 128,
        code_width: int = 64,
        rest_temperature: float = 0.85,
        rest_limit: float | None = None,
        rest_margin: int = 0,
        guidance: float | None = None,
        guidance_rescale: float = 0.0,
        num_directions: int = 128,
        num_gaussians: int = 16,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        round_trips: int = 0,
        encoder_layers: tuple[str, ...] | None = None,
        decoder_layers: tuple[str, ...] | None = None,
    ):
        super().__init__(latent_dim, latent_size, prior)
        sizes = (image_size, image_channels, latent_dim, latent_size, width, max_width, block, shortcut)
        self.encoder = make_encoder(encoder_layers, *sizes, outputs=2)
        self.decoder = make_decoder(decoder_layers, *sizes)
        if detail_dim:
            self.detail = Detail(image_size, image_channels, latent_size, detail_dim)

    def _encode(self, images: torch.Tensor) -> EncoderOutput:
        posterior = self.posterior(images)
        if self.detail is None:
            return posterior
        details = self.detail.encode(self.residuals(images, posterior.latents).to(self.dtype)).float()
        latents = torch.cat([posterior.latents, details], 1)
        return EncoderOutput(latents=latents, logvar=posterior.logvar, latent_shape=self.latent_shape)

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        latents, details = latents.tensor_split([self.config.latent_dim], 1)
        images = self.decoder(latents)
        if self.detail is not None and details.shape[1]:
            images = images + self.detail.decode(details)
        return images

    def posterior(self, images: torch.Tensor) -> EncoderOutput:
        """Encodes images `(B, C, H, W)` to latents `(B, Z)`, without residual latents."""
        mean, logvar = self._mean_and_logvar(images)
        return EncoderOutput(latents=mean, logvar=logvar, latent_shape=self.latent_shape)

    def _mean_and_logvar(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, logvar = self.encoder(images.to(self.dtype)).float().chunk(2, dim=1)  # (B, Z) each
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def residuals(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The residuals `(B, C, H, W)`: images minus the decoder's output for `latents` (B, Z)."""
        return images - self.decoder(latents.to(self.dtype))

    def forward(self, images: torch.Tensor, noise: torch.Tensor | None = None, return_dict: bool = True) -> VAEOutput:
        """Reconstructs `images` (B, C, H, W), without residual latents, from a draw of their posterior: `noise` (B, Z)
        of N(0, I), in its standard deviations from its mean. Without `noise`, from the posterior's mean. Returns a
        tuple without `return_dict`."""
        output = self._forward(images, noise)
        return output if return_dict else output.to_tuple()  # type: ignore[return-value]

    def _forward(self, images: torch.Tensor, noise: torch.Tensor | None) -> VAEOutput:
        mean, logvar = self._mean_and_logvar(images)
        latents = mean if noise is None else mean + torch.exp(0.5 * logvar) * noise
        reconstructions = self.decoder(latents.to(self.dtype))
        return VAEOutput(sample=reconstructions, mean=mean, logvar=logvar, latents=latents)


"""The class of a model, by the name in its `config.json`."""

import os
from collections.abc import Iterator
from typing import Any

from diffusers.utils import CONFIG_NAME



class AutoGenerator:
    """Loads any family's model, by the class name in its `config.json`."""

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike, **kwargs: Any) -> ImageGenerator:
        """Loads the model at `path`, a folder or a Hub id, in evaluation mode. `kwargs` go to the class's own
        `from_pretrained`.

        Raises:
            ValueError: If there is no such model, or its `config.json` names a class that is not one of the families.
        """
        return cls.class_of(path, **kwargs).from_pretrained(path, **kwargs)

    @classmethod
    def class_of(cls, path: str | os.PathLike, **kwargs: Any) -> type[ImageGenerator]:
        """The class of the model at `path`, without loading its weights. The arguments are those of `from_pretrained`.

        Raises:
            ValueError: As `from_pretrained` does.
        """
        class_name = read_config(find_folder(path, [CONFIG_NAME], **kwargs))["_class_name"]
        classes = {subclass.__name__: subclass for subclass in _subclasses(ImageGenerator)}
        if class_name not in classes:
            raise ValueError(
                f"{path} is a model of class {class_name!r}, which is not one of the families: {', '.join(classes)}."
            )
        return classes[class_name]


def _subclasses(model_class: type[ImageGenerator]) -> Iterator[type[ImageGenerator]]:
    """Every family whose class is defined, in this package or elsewhere. A subclass that has its parent's name is not
    one: torch.export makes such classes, and they may outlive it."""
    for subclass in model_class.__subclasses__():
        if subclass.__name__ != model_class.__name__:
            yield subclass
            yield from _subclasses(subclass)


"""The pipeline that diffusers makes of a published folder: from noise to images. It travels with the weights."""

import os
from typing import Any, Self

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput



class ImageGenerationPipeline(DiffusionPipeline):
    """Generates images with a model of any family, with the arguments of diffusers' unconditional pipelines.
    `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` gives one. `hf_vae.ImagePipeline` does more: it
    also encodes, morphs and varies images.

    Args:
        model: What generates the images.
    """

    model: ImageGenerator

    def __init__(self, model: ImageGenerator):
        super().__init__()
        self.register_modules(model=model)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a model's pipeline from a folder or a Hub id, without running code of the folder. The arguments are
        those of `ImageGenerator.from_pretrained`, which also says what it raises."""
        return cls(AutoGenerator.from_pretrained(pretrained_model_name_or_path, **kwargs))

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """As diffusers'. It looks for the class of a component in a folder of the component's name; this model's is in
        the same file as the pipeline."""
        init_dict, *others = super().extract_init_dict(config_dict, **kwargs)
        _, class_name = init_dict["model"]
        return ({**init_dict, "model": (cls.__module__, class_name)}, *others)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves the model, and with it this pipeline: as `ImageGenerator.save_pretrained`."""
        self.model.save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        rest_temperature: float | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generates images.

        Args:
            batch_size: Number of images.
            generator: Source of the noise: one generator, or one for each image; the global one if None.
            num_inference_steps: Number of steps from noise to latents, of a model with a flow.
            guidance_scale: Strength of what the flow's network adds to its Gaussian; the model's own if None.
            temperature: Scale of the noise. Below 1 images are more typical and less varied.
            prior: The prior to draw latents from; the model's own if None.
            output_type: "pil" (PIL images of the model's `output_size`), "np" or "pt": an array `(B, H, W, C)` or a
                tensor `(B, C, H, W)` of the network's own size, in [0, 1].
            return_dict: Return an output with `images`, not a tuple.
            rest_temperature: Scale of the noise of what the code does not say; the model's own if None.

        Raises:
            ValueError: If an argument is not possible, see `ImageGenerator.sample`.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type={output_type!r} is not possible; choose pil, np or pt.")
        samples = self.model.sample(
            batch_size, generator, temperature, prior, num_inference_steps, guidance_scale, rest_temperature
        )
        images = self.image_processor.postprocess(samples, output_type)
        size = self.model.output_size
        if output_type == "pil" and size != images[0].width:
            images = [self.image_processor.resize(image, size, size) for image in images]
        return ImagePipelineOutput(images=images) if return_dict else (images,)
