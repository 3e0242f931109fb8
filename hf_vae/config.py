"""The configuration of a run: dataclasses for its data and training sections, and their form as JSON."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .ranges import limited
from .run_folder import CONFIG_FILE, PATHS_FILE, TIMELAPSES, read_json, write_json


PRESET_NAMES = ("cats", "lfw", "utkface", "afhq-cat", "celeba")  # those of `presets.PRESETS`
PATHS = {"data": ("train_data_dir", "dataset_name"), "train": ("output_dir", "pretrained_model_name_or_path")}
SEEDS = {"least": 0, "most": 2**32 - 1}  # the seeds that NumPy accepts
ONE_LAUNCH = {"resume_from_checkpoint", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token", "dry_run"}
CHANGEABLE = {
    "data_notes",
    "data_license",
    "output_size",
    "prior",
}  # a resumed run may change these, as they do not affect the weights
ONE_SOURCE = "Pass either --dataset_name (a preset or a Hub id) or --train_data_dir."
# where the images are; a run may be resumed with another place, as `split.json` identifies images by their content
PLACE = {"dataset_name", "dataset_config_name", "dataset_split", "revision", "image_column", "train_data_dir"}


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from, and how they are cropped and augmented."""

    dataset_name: str | None = None
    """A preset (cats, lfw, utkface, afhq-cat or celeba) or the id of a dataset on the Hub."""
    dataset_config_name: str | None = None
    """Configuration of the Hub dataset, if it has several."""
    revision: str | None = None
    """Branch, tag or commit of the Hub dataset. Presets have their own."""
    dataset_split: str | None = None
    """Split of the dataset: a name, several such as "train+test", or "all". None takes train, or the only split. In a
    local folder, subfolders and parquet files with names such as train and test are splits too."""
    image_column: str | None = None
    """Column with the images. It can be left out if there is only one image column."""
    train_data_dir: str | None = None
    """Folder of images, including nested folders; a parquet file or a folder of them; or a folder written by
    `save_to_disk` of the datasets library."""
    data_notes: str | None = None
    """Text for the model card: what the images show, where they come from and on what terms. Presets have their
    own."""
    data_license: str | None = None
    """License of the images for the model card, such as mit or cc-by-nc-4.0. None if their source names no license."""
    crop_box: tuple[int, int, int, int] | None = None
    """Part of each image to use: left, top, right and bottom in pixels. The centred square is cut from it."""
    validation_fraction: Annotated[float, limited(above=0, below=1)] = 0.1
    """Fraction of the images to hold out. They are never trained on; every metric is measured on them."""
    split_seed: Annotated[int, limited(**SEEDS)] = 0
    """Seed that decides which images are held out."""
    streaming: bool = False
    """Read the images during training instead of caching them, for datasets larger than memory or disk."""
    shuffle_buffer: Annotated[int, limited(least=1)] = 10_000
    """Number of encoded images that streaming shuffles among. It limits memory use."""
    flip: Annotated[bool, tyro.conf.arg(aliases=["--random_flip"])] = True
    """Mirror half of the training images at random."""
    color_jitter: Annotated[float, limited(least=0, most=1)] = 0.0
    """Largest random change of brightness, contrast and saturation of training images, as a fraction."""
    random_shift: Annotated[float, limited(least=0, most=0.5)] = 0.0
    """Largest random shift of training images, as a fraction of their edge. It helps with few unaligned images."""
    random_zoom: Annotated[float, limited(least=0, below=1)] = 0.0
    """Largest random change of the size of what training images show, as a fraction."""

    def __post_init__(self) -> None:
        _expand_home(self, "dataset_name", "train_data_dir")

    @property
    def place(self) -> str:
        """`dataset_name`, or else `train_data_dir`.

        Raises:
            ValueError: If there is neither.
        """
        if place := self.dataset_name or self.train_data_dir:
            return place
        raise ValueError(ONE_SOURCE)


@dataclass(frozen=True)
class TrainConfig:
    """How to train, and where to write the results."""

    output_dir: str = "runs/model"
    """Run folder for checkpoints, previews and the published model."""
    seed: Annotated[int, limited(**SEEDS)] = 0
    """Seed of the initial weights, the order of the images and all noise."""
    train_batch_size: Annotated[int | Literal["auto"], limited(least=1)] = 64
    """Images in a batch, per process. "auto" takes the largest batch that fits into the memory of a GPU, and 64 on a
    CPU."""
    gradient_accumulation_steps: Annotated[int, limited(least=1)] = 1
    """Number of batches whose gradients are added before an update of the weights."""
    num_train_epochs: Annotated[int, limited(least=1, aliases=["--num_epochs"])] = 100
    """Number of passes over the training images."""
    max_train_steps: Annotated[int | None, limited(least=1)] = None
    """Total number of updates of the weights. It overrides num_train_epochs."""
    max_train_minutes: Annotated[float | None, limited(above=0)] = None
    """Time for the whole command, with decoding, prior, evaluation and card. It replaces max_train_steps and
    num_train_epochs: the run first measures itself and then fixes its number of updates."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """Precision of the forward and backward passes. "auto" takes the setting of `accelerate launch`, or else bf16 if
    the hardware supports it."""
    compile: Literal["auto", "no", "default", "reduce-overhead", "max-autotune"] = "auto"
    """Mode of torch.compile. "auto" compiles in the default mode if the run is long enough to gain from it."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Use the channels-last memory format. "auto" uses it where it is faster."""
    allow_tf32: bool = True
    """Let an NVIDIA or AMD GPU multiply fp32 matrices in TF32."""
    pretrained_model_name_or_path: str | None = None
    """Folder or Hub id of a model to start from instead of random weights. It may be of another family with the same
    networks."""
    prior_steps: Annotated[int | Literal["auto"], limited(least=0)] = "auto"
    """Number of updates of a learned prior, which is trained after the model. "auto" makes as many as the networks
    make, at least 300 and at most 9,000. 0 keeps the prior of the model that the run starts from, for runs that do not
    train the encoder."""
    prior_batch_size: Annotated[int, limited(least=1)] = 128
    """Latents in an update of a learned prior. An update of its code takes a quarter of them. 1024 suits a GPU."""
    prior_dropout: Annotated[float, limited(least=0, below=1)] = 0.0
    """Dropout of the network of a learned prior, for long trainings."""
    prior_draws: Annotated[int, limited(least=1)] = 1
    """Latents drawn from the posterior of each training image for a learned prior. More take as many times the memory,
    and the prior overfits later."""
    prior_early_stopping: bool = True
    """Keep the weights of a learned prior that have the lowest error on held-out images. Without it, the last ones are
    kept: on 7,500 to 10,700 images, longer trainings gave better samples all the same."""
    init_std: Annotated[float | None, limited(least=0)] = None
    """Draw the initial weights of all convolutions from N(init_mean, init_std) and set their biases to 0. None keeps
    PyTorch's default."""
    init_mean: Annotated[float, limited()] = 0.0
    """Mean of the distribution of the initial weights, with init_std."""
    early_stopping_patience: Annotated[int | None, limited(least=1)] = None
    """Stop when the validation loss has not fallen for this number of epochs. None never stops early."""
    learning_rate: Annotated[float, limited(above=0)] = 1e-3
    """Peak learning rate of all networks."""
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup", "constant"] = "cosine"
    """Schedule of the learning rate after the warm-up."""
    lr_warmup_steps: Annotated[int, limited(least=0)] = 200
    """Number of updates over which the learning rate rises to its peak."""
    adam_beta1: Annotated[float, limited(least=0, below=1)] = 0.9
    """AdamW's decay rate of the mean of gradients."""
    adam_beta2: Annotated[float, limited(least=0, below=1)] = 0.99
    """AdamW's decay rate of the mean of squared gradients."""
    adam_weight_decay: Annotated[float, limited(least=0)] = 1e-4
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, limited(least=0)] = 1.0
    """Norm to clip the gradients of each network to. 0 does not clip."""
    use_ema: bool = True
    """Publish an exponential moving average (EMA) of the weights instead of the last weights."""
    ema_decay: Annotated[float, limited(least=0, most=1)] = 0.999
    """Decay of the moving average. At update n it is at most (1 + n) / (10 + n)."""
    save_precision: Literal["fp32", "fp16"] = "fp32"
    """Precision of the published weights. fp16 halves their size on disk; loading converts them to fp32."""
    logging_steps: Annotated[int, limited(least=1)] = 50
    """Number of updates from one line of log.jsonl to the next."""
    preview_steps: Annotated[int, limited(least=0)] = 500
    """Number of updates from one preview grid to the next. A first one is written after 25 updates. 0 writes none.
    With max_train_minutes, the default writes the first one within a minute, and then fewer and fewer."""
    preview_images: Annotated[int, limited(least=1)] = 32
    """Number of images in a preview grid."""
    preview_columns: Annotated[int, limited(least=1)] = 8
    """Number of images in a row of a preview grid."""
    preview_file: str = "step_{step:07d}.png"
    """File name of a preview, ending with .png or .jpg. It may contain {step}, {epoch} and {epoch_step}."""
    timelapse_file: str = TIMELAPSES[0]
    """File name of the animation of all previews: timelapse.webp or timelapse.gif."""
    reconstruction_steps: Annotated[int, limited(least=0)] = 0
    """Number of updates from one sheet of held-out images and their reconstructions to the next. 0 writes none."""
    checkpointing_steps: Annotated[int, limited(least=0)] = 1000
    """Number of updates from one checkpoint to the next; the last update always writes one. 0 writes only that one,
    and deletes it when the model is published."""
    checkpoints_total_limit: Annotated[int | None, limited(least=1)] = 2
    """Maximum number of checkpoints to keep. None keeps all."""
    resume_from_checkpoint: str | None = None
    """Checkpoint folder to resume from, or "latest" for the newest in output_dir."""
    report_to: Literal["none", "tensorboard", "trackio", "wandb", "all"] = "none"
    """Tracker that receives losses and previews. "all" uses every installed tracker. log.jsonl is always written."""
    push_to_hub: bool = False
    """Push the finished model to the Hub."""
    hub_model_id: str | None = None
    """Hub repository to push to, as name or owner/name. None uses the name of output_dir."""
    hub_private_repo: bool = False
    """Create the Hub repository as private."""
    hub_token: str | None = field(default=None, repr=False)
    """Hub token to push with. None uses the token of `hf auth login` or HF_TOKEN. It is never written to disk."""
    dry_run: bool = False
    """Print the configuration and the networks with their sizes, and exit without training."""

    def __post_init__(self) -> None:
        _expand_home(self, "output_dir", "pretrained_model_name_or_path", "resume_from_checkpoint")

    @property
    def keeps_prior(self) -> bool:
        """Whether the model keeps the prior of the model that the run starts from."""
        return self.pretrained_model_name_or_path is not None and self.prior_steps == 0


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run. `train_config.json` holds it, and `--recipe` reads it.

    Args:
        family: Name of the family, a key of `FAMILIES`.
        model: Keyword arguments of the family's model class.
        objective: The family's objective, a frozen dataclass.
        data: Where the images come from.
        train: How to train, and where to write the results.
    """

    family: str
    model: dict[str, Any]
    objective: Any
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, without the token."""
        sections = dataclasses.asdict(self)
        del sections["train"]["hub_token"]
        return sections

    def save(self, folder: Path) -> None:
        """Writes `train_config.json`, a recipe that can be published: without the settings of this launch, and with
        names instead of paths. The paths are written to `paths.json`, which is not published."""
        sections = self.to_dict()
        sections["train"] = {name: value for name, value in sections["train"].items() if name not in ONE_LAUNCH}
        published = without_paths(sections)
        paths = {"data": {name: _absolute(sections["data"][name]) for name in PATHS["data"] if sections["data"][name]}}
        write_json(folder, PATHS_FILE, paths)
        write_json(folder, CONFIG_FILE, published)


def without_paths(sections: dict[str, Any]) -> dict[str, Any]:
    """The sections of a configuration with folder names instead of paths of this machine, such as `photos/` for a
    dataset. Short paths such as runs/photos-vae and Hub ids are kept."""
    data, train = dict(sections["data"]), dict(sections["train"])
    if data["train_data_dir"]:
        data["train_data_dir"] = _dataset_name(data["train_data_dir"])
    if is_local_dataset(data["dataset_name"]):
        data["dataset_name"] = _dataset_name(data["dataset_name"])
    for name in PATHS["train"]:
        if train.get(name):
            train[name] = shown_path(train[name])
    return {**sections, "data": data, "train": train}


def with_paths(sections: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The sections of a `train_config.json` with the paths of the data on this machine, if `folder` has a
    `paths.json`."""
    has_data = isinstance(sections, dict) and isinstance(sections.get("data"), dict)
    if not has_data or not (folder / PATHS_FILE).is_file():
        return sections
    return {**sections, "data": sections["data"] | read_json(folder, PATHS_FILE)["data"]}


def is_local_dataset(dataset_name: str | None) -> bool:
    """Whether `--dataset_name` is a path, as the datasets library allows, on this machine or on another one."""
    if not dataset_name or dataset_name in PRESET_NAMES:
        return False
    return dataset_name.endswith("/") or Path(dataset_name).expanduser().exists()


def shown_path(path: str | Path) -> str:
    """A path to a model as it is published: unchanged if it is as short as runs/photos-vae, else its last part."""
    path = Path(path)
    is_short = not path.is_absolute() and len(path.parts) <= 2 and not {"..", "~"} & set(path.parts)
    return path.as_posix() if is_short else _name(path)


def _dataset_name(path: str) -> str:
    name = _name(path)
    return name if name.lower().endswith(".parquet") else f"{name}/"


def _name(path: str | Path) -> str:
    """The last part of a path. A link is not followed, as the name of its target is not public."""
    return Path(os.path.abspath(os.path.expanduser(path))).name


def _absolute(path: str) -> str:
    """The absolute path of a file or folder. Presets and Hub ids are returned unchanged."""
    absolute = os.path.abspath(os.path.expanduser(path))
    return absolute if path not in PRESET_NAMES and os.path.exists(absolute) else path


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The differences between two configurations that lead to different weights, as `section.field: theirs -> ours`:
    in family, model, objective and data, but not in the place of the data. The fingerprint of the `split` is compared
    too if `ours` has one; that of a checkpoint has."""
    found = []
    if "split" in ours and ours["split"] != theirs.get("split"):
        found.append("it has other images, or another split of them")
    if ours["family"] != theirs["family"]:
        found.append(f"family: {theirs['family']} -> {ours['family']}")
    for section in ("model", "objective", "data"):
        for key in sorted((set(ours[section]) | set(theirs[section])) - CHANGEABLE - PLACE):
            before, now = theirs[section].get(key), ours[section].get(key)
            if json.dumps(before) != json.dumps(now):
                found.append(f"{section}.{key}: {before} -> {now}")
    return found


def _expand_home(section: Any, *names: str) -> None:
    """Expands `~` in these fields of a frozen dataclass. A shell expands it in some places only, and never in a
    recipe."""
    for name in names:
        if value := getattr(section, name):
            object.__setattr__(section, name, os.path.expanduser(value))
