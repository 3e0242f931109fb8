"""The presets of `--dataset_name`: datasets on the Hub, with the column, crop and terms that their origins state."""

from dataclasses import replace

from .config import DataConfig


# A commit where one is known; "main" where none could be looked up.
PRESETS: dict[str, DataConfig] = {
    "cats": DataConfig(
        dataset_name="cvdl/catfaces",
        revision="main",
        image_column="img",
        data_notes="29,842 cat faces at 64x64 pixels (cvdl/catfaces on the Hub, from Ferlix/Cat-faces-dataset; "
        "collected from Kaggle, Oxford, Pixabay and COCO). The dataset's card states the MIT licence.",
        data_license="mit",
    ),
    "lfw": DataConfig(
        dataset_name="logasja/lfw",
        revision="0ee47979927a48dadf11083cb53b51439fa92dc9",
        image_column="image",
        crop_box=(83, 92, 167, 176),
        data_notes="13,233 press photographs of public figures, Labeled Faces in the Wild (Huang et al. 2007; "
        "logasja/lfw on the Hub), cut to the face as LFWcrop does. A research benchmark; no licence is stated.",
    ),
    "utkface": DataConfig(
        dataset_name="nu-delta/utkface",
        revision="main",
        image_column="image",
        data_notes="23,705 faces labelled with estimated age, gender and ethnicity, UTKFace (Zhang, Song and Qi 2017; "
        "nu-delta/utkface on the Hub). Available for non-commercial research purposes only; the copyright belongs to "
        "the owners of the images.",
    ),
}


def with_preset(data: DataConfig) -> DataConfig:
    """The configuration with a preset's values where the caller left them out."""
    preset = PRESETS.get(data.dataset_name or "")
    if preset is None:
        return data
    defaults = DataConfig()
    values = {name: value for name, value in vars(preset).items() if getattr(data, name) == getattr(defaults, name)}
    return replace(data, **values | {"dataset_name": preset.dataset_name})
