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

from .formats import (
    VERSION_KEY,
    LoadError,
    added_names,
    refuse_early_flow,
    refuse_newer_format,
    upgraded_config,
    upgraded_names,
    version_of,
)


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
