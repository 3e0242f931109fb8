"""What a run is: the data, training, objective and model sections, as dataclasses, as flags and as JSON."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .ranges import limited
from .run_folder import CONFIG_FILE, PATHS_FILE, TIMELAPSES, read_json, write_json


PRESET_NAMES = (
    "cats",
    "lfw",
    "utkface",
    "afhq-cat",
    "celeba",
)  # of `presets.PRESETS`: not folders that have such a name
PATHS = {"data": ("train_data_dir", "dataset_name"), "train": ("output_dir", "pretrained_model_name_or_path")}
SEEDS = {"least": 0, "most": 2**32 - 1}  # what NumPy takes
ONE_LAUNCH = {"resume_from_checkpoint", "push_to_hub", "hub_model_id", "hub_private_repo", "hub_token", "dry_run"}
CHANGEABLE = {"data_notes", "data_license", "output_size", "prior"}  # what a resumed run may change: no weight follows
# where the images are; that they are the same is known by their content, which `split.json` records
PLACE = {"dataset_name", "dataset_config_name", "dataset_split", "revision", "image_column", "train_data_dir"}


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from, and how they are cut and augmented."""

    dataset_name: str | None = None
    """A preset (cats, lfw, utkface, afhq-cat, celeba) or the id of a dataset on the Hub."""
    dataset_config_name: str | None = None
    """Configuration of the Hub dataset, where it has several."""
    revision: str | None = None
    """Branch, tag or commit of the Hub dataset; a preset brings its own."""
    dataset_split: str | None = None
    """Split of the dataset to use; "train+test" or "all" for several. None takes train, or the only split there is. It
    also chooses among the sub-folders or parquet files of a folder that are called like splits, such as train/ and
    test/: None takes train/, or what lies outside of test/ and the like."""
    image_column: str | None = None
    """Column that holds the images; found by itself where there is only one."""
    train_data_dir: str | None = None
    """A folder of images (nested and linked folders are searched), a parquet file or a folder of them, or what
    `save_to_disk` of datasets wrote."""
    data_notes: str | None = None
    """What the pictures are, where they come from and on what terms, for the model card; a preset brings its own."""
    data_license: str | None = None
    """Licence of the pictures as their origin states it, such as mit or cc-by-nc-4.0; None where it states none."""
    crop_box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of the part of each picture that is used, in pixels, before the centred square."""
    validation_fraction: Annotated[float, limited(above=0, below=1)] = 0.1
    """Share of the pictures held out: never trained on, and what every metric is measured on."""
    split_seed: Annotated[int, limited(**SEEDS)] = 0
    """Seed of that split."""
    streaming: bool = False
    """Read the pictures while training, without a cache: for sets larger than the disk or memory."""
    shuffle_buffer: Annotated[int, limited(least=1)] = 10_000
    """Encoded pictures that streaming shuffles among; what bounds its memory."""
    flip: Annotated[bool, tyro.conf.arg(aliases=["--random_flip"])] = True
    """Mirror half of the pictures while training."""
    color_jitter: Annotated[float, limited(least=0, most=1)] = 0.0
    """Change brightness, contrast and saturation by up to this share while training."""

    def __post_init__(self) -> None:
        _expand_home(self, "dataset_name", "train_data_dir")


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast, and where to."""

    output_dir: str = "runs/model"
    """Folder of the run: checkpoints, previews and, at the end, the published model."""
    seed: Annotated[int, limited(**SEEDS)] = 0
    """Seed of the weights, the order of the pictures and all noise."""
    train_batch_size: Annotated[int | Literal["auto"], limited(least=1)] = 64
    """Images in a batch, per process; "auto" for the most that fit into memory."""
    gradient_accumulation_steps: Annotated[int, limited(least=1)] = 1
    """Batches whose gradients are added before the weights are updated."""
    num_train_epochs: Annotated[int, limited(least=1, aliases=["--num_epochs"])] = 100
    """Passes over the training pictures."""
    max_train_steps: Annotated[int | None, limited(least=1)] = None
    """Weight updates in all; overrides num_train_epochs."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """Precision of forward and backward passes; "auto" for what `accelerate launch` was told, or else bf16 where the
    hardware computes in it."""
    compile: Literal["auto", "no", "default", "reduce-overhead", "max-autotune"] = "auto"
    """Mode of torch.compile; "auto" for the default one where a run is long enough to pay for it."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Store images and weights with their channels together; "auto" for where that is faster."""
    allow_tf32: bool = True
    """Let a GPU multiply fp32 matrices in TF32."""
    pretrained_model_name_or_path: str | None = None
    """Folder or Hub id of a model with the same networks, of any family, to start from instead of random weights."""
    prior_steps: Annotated[int, limited(least=0)] = 6000
    """Updates of the network that learns what latents to draw, once the model is trained (prior "flow"); 0 keeps the
    prior of the model that the run starts from, for an encoder that is not trained."""
    init_std: Annotated[float | None, limited(least=0)] = None
    """Draw the first weights of all convolutions from N(init_mean, init_std), and their biases as 0; None for what
    PyTorch does."""
    init_mean: Annotated[float, limited()] = 0.0
    """Mean of that distribution."""
    early_stopping_patience: Annotated[int | None, limited(least=1)] = None
    """Epochs without a lower validation loss, on the held-out pictures, after which training stops; None never."""
    learning_rate: Annotated[float, limited(above=0)] = 1e-3
    """Peak learning rate of every network."""
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    lr_warmup_steps: Annotated[int, limited(least=0)] = 200
    """Updates over which the learning rate rises to its peak."""
    adam_beta1: Annotated[float, limited(least=0, below=1)] = 0.9
    """Decay of AdamW's mean of gradients."""
    adam_beta2: Annotated[float, limited(least=0, below=1)] = 0.99
    """Decay of AdamW's mean of squared gradients."""
    adam_weight_decay: Annotated[float, limited(least=0)] = 1e-4
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, limited(least=0)] = 1.0
    """Norm that the gradients of each network are clipped to; 0 does not clip."""
    use_ema: bool = True
    """Publish a running average of the weights instead of their last values."""
    ema_decay: Annotated[float, limited(least=0, most=1)] = 0.999
    """Decay of that average, approached as (1 + n) / (10 + n) at its n-th update."""
    save_precision: Literal["fp32", "fp16"] = "fp32"
    """Precision of the published weights. fp16 halves their file; whoever loads it gets fp32 again."""
    logging_steps: Annotated[int, limited(least=1)] = 50
    """Updates between two lines of log.jsonl."""
    preview_steps: Annotated[int, limited(least=0)] = 500
    """Updates between two preview grids; an early one follows after 25 updates. 0 makes none."""
    preview_images: Annotated[int, limited(least=1)] = 32
    """Pictures in a preview grid."""
    preview_columns: Annotated[int, limited(least=1)] = 8
    """Pictures in a row of it."""
    preview_file: str = "step_{step:07d}.png"
    """Name of a preview, whose ending says its format; may hold {step}, {epoch} and {epoch_step}."""
    timelapse_file: str = TIMELAPSES[0]
    """Name of the animation that all previews are joined into: a .webp or .gif."""
    reconstruction_steps: Annotated[int, limited(least=0)] = 0
    """Updates between two sheets of held-out pictures above their reconstructions; 0 makes none."""
    checkpointing_steps: Annotated[int, limited(least=0)] = 1000
    """Updates between two checkpoints to resume from, besides one after the last update; 0 makes that one alone, and
    removes it once the model is published."""
    checkpoints_total_limit: Annotated[int | None, limited(least=1)] = 2
    """Checkpoints that are kept; None keeps all."""
    resume_from_checkpoint: str | None = None
    """A checkpoint folder, or "latest" for the newest in output_dir."""
    report_to: Literal["none", "tensorboard", "trackio", "wandb", "all"] = "none"
    """Tracker that gets the losses and previews beside log.jsonl; "all" for those that are installed."""
    push_to_hub: bool = False
    """Push the finished model to the Hub."""
    hub_model_id: str | None = None
    """Repository to push to, as name or owner/name; the name of output_dir if None."""
    hub_private_repo: bool = False
    """Create that repository as a private one."""
    hub_token: str | None = field(default=None, repr=False)
    """Token to push with; that of `hf auth login`, or HF_TOKEN, if None. It is written nowhere."""
    dry_run: bool = False
    """Print the resolved configuration, the networks and their sizes, and stop."""

    def __post_init__(self) -> None:
        _expand_home(self, "output_dir", "pretrained_model_name_or_path", "resume_from_checkpoint")

    @property
    def keeps_prior(self) -> bool:
        """Whether the model keeps the prior of the one that the run starts from."""
        return self.pretrained_model_name_or_path is not None and self.prior_steps == 0


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. `train_config.json` holds it, and `--recipe` reads it back.

    Args:
        family: Name of the family, a key of `FAMILIES`.
        model: Keyword arguments of the family's model class.
        objective: The family's objective, a frozen dataclass.
        data: Where the pictures come from.
        train: How long, how fast, and where to.
    """

    family: str
    model: dict[str, Any]
    objective: Any
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, but for the token: this is what is printed and written."""
        sections = dataclasses.asdict(self)
        del sections["train"]["hub_token"]
        return sections

    def save(self, folder: Path) -> None:
        """Writes `train_config.json`: the configuration as a recipe that may be published, so without what concerned
        this one launch, and with names in place of paths. The paths go to `paths.json`, which is not published."""
        sections = self.to_dict()
        sections["train"] = {name: value for name, value in sections["train"].items() if name not in ONE_LAUNCH}
        published = without_paths(sections)
        paths = {"data": {name: _absolute(sections["data"][name]) for name in PATHS["data"] if sections["data"][name]}}
        write_json(folder, PATHS_FILE, paths)
        write_json(folder, CONFIG_FILE, published)


def without_paths(sections: dict[str, Any]) -> dict[str, Any]:
    """The sections of a configuration with the name of a folder in place of its path on this machine: `photos/` for a
    dataset. A path such as runs/photos-vae stays, and so does the id of a model or dataset on the Hub."""
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
    """The sections of a `train_config.json` with the place of the data that the run in `folder` had on this machine,
    where its `paths.json` says so."""
    has_data = isinstance(sections, dict) and isinstance(sections.get("data"), dict)
    if not has_data or not (folder / PATHS_FILE).is_file():
        return sections
    return {**sections, "data": sections["data"] | read_json(folder, PATHS_FILE)["data"]}


def is_local_dataset(dataset_name: str | None) -> bool:
    """Whether `--dataset_name` names a folder or file here, as `datasets` allows, or once named one elsewhere."""
    if not dataset_name or dataset_name in PRESET_NAMES:
        return False
    return dataset_name.endswith("/") or Path(dataset_name).expanduser().exists()


def shown_path(path: str | Path) -> str:
    """How a path to a model is published: as it is where it is as short as runs/photos-vae, else its last part."""
    path = Path(path)
    is_short = not path.is_absolute() and len(path.parts) <= 2 and not {"..", "~"} & set(path.parts)
    return path.as_posix() if is_short else _name(path)


def _dataset_name(path: str) -> str:
    name = _name(path)
    return name if name.lower().endswith(".parquet") else f"{name}/"


def _name(path: str | Path) -> str:
    """The last part of a path, as it was typed: a link is not followed, as its target's name is not public."""
    return Path(os.path.abspath(os.path.expanduser(path))).name


def _absolute(path: str) -> str:
    """A path that holds in any working folder; a preset or the id of a dataset on the Hub as it is."""
    absolute = os.path.abspath(os.path.expanduser(path))
    return absolute if path not in PRESET_NAMES and os.path.exists(absolute) else path


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The fields, as `section.field: theirs -> ours`, in which two configurations would train different weights:
    family, model, objective and data, but not where the data is. Where both name the `split` of their images by its
    fingerprint, as checkpoints do, that is compared as well."""
    found = []
    if "split" in ours and ours["split"] != theirs.get("split"):
        found.append("its images are others, or on other sides of the split")
    if ours["family"] != theirs["family"]:
        found.append(f"family: {theirs['family']} -> {ours['family']}")
    for section in ("model", "objective", "data"):
        for key in sorted((set(ours[section]) | set(theirs[section])) - CHANGEABLE - PLACE):
            before, now = theirs[section].get(key), ours[section].get(key)
            if json.dumps(before) != json.dumps(now):
                found.append(f"{section}.{key}: {before} -> {now}")
    return found


def _expand_home(section: Any, *names: str) -> None:
    """Makes a home folder of the `~` in these fields of a frozen dataclass: a shell does so in some places only, and a
    recipe has none."""
    for name in names:
        if value := getattr(section, name):
            object.__setattr__(section, name, os.path.expanduser(value))
