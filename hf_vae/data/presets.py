"""The presets of `--dataset_name`: datasets on the Hub, with their image column, crop box, notes and licence."""

from dataclasses import dataclass, fields, replace

from ..config import DataConfig


@dataclass(frozen=True)
class Preset(DataConfig):
    """A dataset on the Hub, ready to be trained on."""

    labels: tuple[str, ...] = ()
    """Label columns, for `labels.load_labels`."""


# A commit where one is known; "main" where none could be looked up.
PRESETS: dict[str, Preset] = {
    "cats": Preset(
        dataset_name="cvdl/catfaces",
        revision="main",
        image_column="img",
        data_notes="29,842 cat faces at 64x64 pixels (cvdl/catfaces on the Hub, from Ferlix/Cat-faces-dataset; "
        "collected from Kaggle, Oxford, Pixabay and COCO). The dataset's card states the MIT licence.",
        data_license="mit",
    ),
    "lfw": Preset(
        dataset_name="logasja/lfw",
        revision="0ee47979927a48dadf11083cb53b51439fa92dc9",
        image_column="image",
        crop_box=(83, 92, 167, 176),
        data_notes="13,233 press photographs of public figures, Labeled Faces in the Wild (Huang et al. 2007; "
        "logasja/lfw on the Hub), cropped to the face like LFWcrop. A research benchmark; no licence is stated.",
        labels=("label",),
    ),
    "utkface": Preset(
        dataset_name="nu-delta/utkface",
        revision="main",
        image_column="image",
        data_notes="23,705 faces labelled with estimated age, gender and ethnicity, UTKFace (Zhang, Song and Qi 2017; "
        "nu-delta/utkface on the Hub). Available for non-commercial research purposes only; the copyright belongs to "
        "the owners of the images.",
        labels=("age", "gender", "ethnicity"),
    ),
    "afhq-cat": Preset(
        dataset_name="luethan2025/AFHQ-Cat-128x128",
        revision="main",
        image_column="image",
        data_notes="Cat faces at 128x128 pixels, the cats of Animal Faces-HQ (Choi, Uh, Yoo and Ha 2020, NAVER; "
        "luethan2025/AFHQ-Cat-128x128 on the Hub). AFHQ is under CC BY-NC 4.0; the copy states nothing of its own.",
        data_license="cc-by-nc-4.0",
    ),
    "celeba": Preset(
        dataset_name="flwrlabs/celeba",
        revision="2d738f56e0e7f925ea36ae7c808ea925264aacec",
        image_column="image",
        data_notes="The training split of CelebA, aligned photographs of celebrities at 178x218 pixels (Liu, Luo, "
        "Wang and Tang 2015; flwrlabs/celeba on the Hub), of which the centred square is used. Available for "
        "non-commercial research purposes only; the images may not be redistributed.",
        labels=("Male", "Smiling"),
    ),
}


def with_preset(data: DataConfig) -> DataConfig:
    """The configuration with the values of the preset that it names, except where it has values of its own."""
    preset = PRESETS.get(data.dataset_name or "")
    if preset is None:
        return data
    names = [field.name for field in fields(DataConfig) if getattr(data, field.name) == field.default]
    values = {name: getattr(preset, name) for name in names}
    return replace(data, **values | {"dataset_name": preset.dataset_name})
