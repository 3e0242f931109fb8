"""What a dataset holds, before training: sizes, formats, copies, broken files and labels."""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from ..config import DataConfig
from ..pictures import picture_grid, to_float, to_pictures
from .decoding import Tally, decode_files
from .labels import read_columns
from .listing import as_text
from .presets import with_preset
from .sources import open_source


SHEET_PICTURES = 64
SHEET_SIZE = 64  # pixels of an image on the sheet: the default size of models
SHOWN = 5  # sizes, values and broken files that are listed


@dataclass
class Findings:
    """What `inspect_pictures` found.

    Args:
        count: Images found, broken files included.
        usable: Distinct images that training would use, held-out ones included; 0 if it would refuse the dataset.
        sizes: Number of images for each width and height, in pixels.
        modes: Number of images for each of Pillow's modes, such as RGB.
        formats: Number of images for each format, such as JPEG.
        duplicates: Exact copies of another image, which training drops.
        broken: A line for each file that does not decode, which training skips.
        left_out: Number of files that are not used, for each reason.
        notices: Sentences to read before training, such as which split is used.
        labels: For each label column, the number of images with each value.
        examples: Some of the images, evenly spread, cropped and resized as in training: uint8 `(C, H, W)` each.
    """

    count: int = 0
    usable: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    broken: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    labels: dict[str, Counter[Any]] = field(default_factory=dict)
    examples: list[torch.Tensor] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The findings as values for JSON, without the examples."""
        return {
            "count": self.count,
            "usable": self.usable,
            "duplicates": self.duplicates,
            "broken": self.broken,
            "left_out": self.left_out,
            "notices": self.notices,
            "sizes": {f"{width}x{height}": number for (width, height), number in self.sizes.most_common()},
            "modes": dict(self.modes),
            "formats": dict(self.formats),
            "labels": {name: {str(k): v for k, v in values.most_common()} for name, values in self.labels.items()},
        }

    def __str__(self) -> str:
        lines = [
            f"images       {self.count:,}, of which training would use {self.usable:,}",
            f"copies       {self.duplicates:,}",
            f"broken       {len(self.broken):,}" + "".join(f"\n  {line}" for line in self.broken[:SHOWN]),
            f"left out     {as_text(self.left_out) or 'nothing'}",
            f"sizes        {_most_common({f'{w}x{h}': number for (w, h), number in self.sizes.items()})}",
        ]
        if self.sizes:
            edges = sorted(min(size) for size in self.sizes.elements())
            lines.append(f"shorter edge {edges[0]} to {edges[-1]} pixels, median {median(edges):g}")
        lines += [f"modes        {_most_common(self.modes)}", f"formats      {_most_common(self.formats)}"]
        lines += [f"label {name}: {_most_common(values)}" for name, values in self.labels.items()]
        lines += self.notices
        if not self.usable:
            lines.append("Training would refuse this dataset: too many files are broken, or there are too few images.")
        return "\n".join(lines)


def _most_common(values: dict[Any, int]) -> str:
    """The most frequent values with their counts, and the number of the others."""
    common = Counter(values).most_common(SHOWN)
    listed = ", ".join(f"{value} ({number:,})" for value, number in common) or "none"
    return listed + (f" and {len(values) - SHOWN:,} others" if len(values) > SHOWN else "")


def inspect_pictures(data: DataConfig) -> Findings:
    """Decodes every image of the source that `data` names, one chunk at a time.

    Raises:
        ValueError: If `data` names no source or two, or the source or its image column does not exist.
    """
    data = with_preset(data)
    source = open_source(data)
    files = source.files()
    findings = Findings(left_out=files.left_out, notices=files.notices)
    findings.labels = {name: Counter(map(_countable, values)) for name, values in read_columns(source).items()}
    shown = {position * files.length // SHEET_PICTURES for position in range(SHEET_PICTURES)}
    contents = tqdm(files.contents, "Inspecting images", files.length, unit="image", disable=None)
    tally = Tally()
    for row, file in enumerate(decode_files(contents, SHEET_SIZE, 3, data.crop_box)):
        tally.count(file)
        if file.image is not None and row in shown:
            findings.examples.append(file.image)
        if file.looks:
            findings.sizes[file.looks.size] += 1
            findings.modes[file.looks.mode] += 1
            findings.formats[file.looks.format] += 1
    findings.count, findings.duplicates, findings.broken = tally.read, tally.copies, list(tally.broken.elements())
    findings.usable = tally.usable if tally.is_trainable else 0
    return findings


def contact_sheet(findings: Findings) -> Image.Image:
    """The example images as one grid."""
    return picture_grid(to_pictures(to_float(torch.stack(findings.examples))))


def _countable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
