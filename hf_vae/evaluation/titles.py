"""The measures in `metrics.json` as people read them: on cards, and in the tables of `hf-vae`."""

import re
from typing import Any, NamedTuple

from ..models.priors import CIRCLE, LINE, PATHS
from .features import InceptionFeatures
from .metrics import DISTANCES, LIKENESS, NUM_BANDS, SHARPNESS, VARIETY


GROUPS = {
    "reconstructions": "reconstructions",
    "reconstructions_without_details": "reconstructions without residual latents",
    "samples": "samples",
}
MIDWAY = {kind: f"in the {kind}" for kind in PATHS} | {LINE: "on a line", CIRCLE: "on a circle"}
OTHER_TITLES = {
    "faces_found_samples_ratio": "Share of samples with a face that a cascade finds, ratio to real",
    "slider_strength_median": "Slider strength, median of the first components (at most ten)",
    "slider_faces_found_ratio": "Share of images with a found face at both ends of these sliders, ratio to real",
    "training_distance_samples_ratio": "Median distance to the nearest training image, samples to held-out",
    **{
        f"interpolation_{kind}_sharpness_middle_ratio": f"Variance of the Laplacian midway {where}, ratio to the ends"
        for kind, where in MIDWAY.items()
    },
    **{
        f"interpolation_{kind}_faces_found_ratio": f"Share of images with a found face midway {where}, ratio to real"
        for kind, where in MIDWAY.items()
    },
}
LABEL_TITLES = {
    "probe_accuracy": "Label {}: balanced accuracy of a probe on held-out images",
    "samples_accuracy": "Label {}: share of samples asked for a word that have it, by this probe, mean over words",
    "probe_error": "Label {}: mean absolute error of a probe on held-out images",
    "samples_error": "Label {}: mean absolute error of samples asked for a number, by this probe",
    "slider_flips": "Label {}: share of samples that change sides at +2 of its sliders, by this probe",
    "slider_change": "Label {}: change of these samples (efficientnet features), ratio to that between two samples",
}
LABEL_KEY = re.compile(rf"label_(?P<name>.+)_(?P<measure>{'|'.join(LABEL_TITLES)})")
NETWORK_NOTES = {
    "simclr": "simclr is a small network of hf_vae, which is blind to part of what eyes see",
    "efficientnet": "efficientnet is EfficientNet-Lite0, trained on ImageNet, at 128x128 pixels",
    "inception": f"inception is the Inception-v3 of FID, for which images are {InceptionFeatures.resizing}",
}


class Measured(NamedTuple):
    """A measure of a model.

    Args:
        key: Its name in `metrics.json`. The summary of a power spectrum is not in there; its key says which
            ratio of the bands it is, the smallest or the largest.
        title: What people read.
        value: Its value.
    """

    key: str
    title: str
    value: float


def measured(found: dict[str, Any]) -> list[Measured]:
    """What cards and tables show of the content of a `metrics.json`, in their order."""
    rows = [Measured(key, title, found[key]) for key, title in _titles().items() if key in found]
    rows += measured_labels(found)
    for group in ("samples", "reconstructions"):
        bands = [found[key] for key in found if re.fullmatch(rf"spectrum_band_\d_{group}_ratio", key)]
        for name, choose in (("smallest", min), ("largest", max)) if bands else ():
            title = f"Power spectrum of {group} against real images: {name} ratio over {NUM_BANDS} frequency bands"
            rows.append(Measured(f"spectrum_{group}_{name}_ratio", title, choose(bands)))
    for name, metric in DISTANCES.items():
        for network in _networks(found):
            prefix, title = f"{name}_{network}_", f"{metric.title} ({network} features)"
            if (name, network) == ("frechet", "inception"):
                title = f"FID of {found['num_samples']:,} images"
            for key in (key for key in found if key.startswith(prefix)):
                group = key.removeprefix(prefix)
                if group == "ratio":
                    rows.append(Measured(key, f"{title}, samples, ratio to training images", found[key]))
                elif name == "frechet" or group in (f"prior_{found['sample_prior']}", "training_images"):
                    what = "training images" if group == "training_images" else f"samples, {group.split('_')[1]} prior"
                    rows.append(Measured(key, f"{title}, {what}", found[key]))
    return rows


def measured_labels(found: dict[str, Any]) -> list[Measured]:
    """Those of samples on request and of label sliders, in the order of the file."""
    parts = {key: LABEL_KEY.fullmatch(key) for key in found}
    return [
        Measured(key, LABEL_TITLES[part["measure"]].format(part["name"]), found[key])
        for key, part in parts.items()
        if part is not None
    ]


def network_notes(found: dict[str, Any]) -> str:
    """What the networks are whose features the distances of a `metrics.json` are measured in, in one or two
    sentences."""
    networks = _networks(found)
    notes = "; ".join(NETWORK_NOTES.get(name, f"{name} is a network of the trainer's own") for name in networks)
    return f"{notes}." if "inception" in networks else f"{notes}. These values are not FID."


def _networks(found: dict[str, Any]) -> list[str]:
    return found.get("feature_networks", [found["feature_network"]])


def _titles() -> dict[str, str]:
    titles: dict[str, str] = {}
    for name, metric in LIKENESS.items():
        unit = f", {metric.unit}" if metric.unit else ""
        titles[f"reconstruction_{name}"] = f"Reconstruction {metric.title}{unit}"
        without = f"Reconstruction {metric.title} without residual latents{unit}"
        titles[f"reconstruction_{name}_without_details"] = without
    for name, metric in SHARPNESS.items():
        titles |= {f"{name}_{group}_ratio": f"{metric.title} of {of}, ratio to real" for group, of in GROUPS.items()}
    titles |= {f"{name}_samples_ratio": f"{metric.title}, ratio to real" for name, metric in VARIETY.items()}
    return titles | OTHER_TITLES
