"""Faces cropped and turned so that their eyes lie at the same places in all images."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..config import DataConfig
from ..pictures import picture_to_uint8, to_float
from .decoding import decode_whole
from .folder_metadata import FILE_NAME
from .labels import read_columns
from .landmarks import Landmarks, find_landmarks, open_network
from .messages import printable
from .presets import with_preset
from .sources import open_source


METADATA = "metadata.jsonl"
SEARCH_EDGE = 192  # pixels; faces are searched in images whose shorter edge is at most this long
LEAST_DISTANCE = 0.2  # of the eyes in the median image; below, the images are photos, and not crops of faces
OF_PHOTOS = (0.35, 0.42)  # the framing of photos: distance and height of the eyes
LARGEST_EDGE = 512  # pixels, unless the caller asks for more
MAX_BEYOND = 0.25  # of an aligned image; with more of it mirrored, a second face comes into view


@dataclass(frozen=True)
class Framing:
    """Where the eyes lie in aligned images.

    Args:
        edge: Width and height of the images, in pixels.
        eye_distance: Distance between the eyes, as a share of the edge. They are level, and centred.
        eye_height: Distance of the eyes from the top, as a share of the edge.
    """

    edge: int
    eye_distance: float
    eye_height: float


@dataclass(frozen=True)
class Wander:
    """How much the eyes of faces differ in their place, as standard deviations.

    Args:
        x: Of the point midway between the eyes, in pixels of the aligned images.
        y: The same, from top to bottom.
        distance: Of the distance between the eyes, in these pixels.
        roll: Of the angle of the line through the eyes, in degrees.
    """

    x: float
    y: float
    distance: float
    roll: float

    @classmethod
    def of(cls, faces: Landmarks) -> "Wander":
        x, y = faces.eye_centres.std(0, correction=0).tolist()
        distance, roll = (each.std(correction=0).item() for each in (faces.eye_distances, faces.rolls))
        return cls(x, y, distance, roll)

    def __str__(self) -> str:
        return (
            f"{self.x:.1f} px from side to side, {self.y:.1f} px up and down, {self.distance:.1f} px in their "
            f"distance, {self.roll:.1f} degrees"
        )


@dataclass(frozen=True)
class Alignment:
    """What `align_faces` did.

    Args:
        framing: Where the eyes lie now.
        written: Number of aligned images.
        without_face: The names of the images in which no face was found.
        broken: A line for each file that does not decode.
        beyond: The names of the images that show too little around the face, see `max_beyond` of `align_faces`.
        before: How much the eyes wandered, in the images as training would crop and resize them.
        after: How much they wander in the aligned images, where they were searched again.
    """

    framing: Framing
    written: int
    without_face: list[str]
    broken: list[str]
    beyond: list[str]
    before: Wander
    after: Wander

    def __str__(self) -> str:
        edge, distance, height = self.framing.edge, self.framing.eye_distance, self.framing.eye_height
        lines = [
            f"aligned {self.written:,} faces, {edge}x{edge} pixels; eyes {distance:.2f} of the edge apart, "
            f"{height:.2f} of it from the top",
            f"eyes wandered before by {self.before}",
            f"eyes wander now by {self.after}",
            _listed("no face found, skipped", self.without_face),
            _listed("too little of the image around the face, skipped", self.beyond),
            _listed("broken, skipped", self.broken),
        ]
        return "\n".join(lines)


def _listed(title: str, lines: list[str]) -> str:
    return f"{title}: {len(lines):,}" + "".join(f"\n  {line}" for line in lines)


def align_faces(
    data: DataConfig,
    folder: Path,
    edge: int | None = None,
    eye_distance: float | None = None,
    eye_height: float | None = None,
    max_beyond: float = MAX_BEYOND,
) -> Alignment:
    """Writes the faces of the source that `data` names into a new folder, one PNG each. Its labels follow, in a
    `metadata.jsonl`. A `crop_box` is not used, because faces are found anywhere.

    Args:
        data: Where the images are.
        folder: The folder to write, which does not exist or is empty. It exists only once it is complete.
        edge: Width and height of the images, in pixels. None for that at which the median face keeps its size, and at
            most 512.
        eye_distance: Distance between the eyes, as a share of the edge. None for that in the median image, as training
            crops it. If that is below 0.2, the images are photos, and it is 0.35.
        eye_height: Distance of the eyes from the top, as a share of the edge. None for that in the median image, and
            0.42 for photos.
        max_beyond: The largest share of an aligned image that may lie outside of its photo, whose mirrored edge is
            shown there. A face that needs more is skipped.

    Raises:
        ValueError: If the `folder` exists and is not empty, `data` names no source or two, no face is found, or a
            package is missing, see `open_network`.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder; choose another one.")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"{folder.absolute().parent} does not exist; create it, or choose another folder.")
    open_network()
    data = with_preset(data)
    places: dict[int, Landmarks] = {}  # of each image that has a face, by its number
    sizes, without_face, broken = [], [], []
    for number, name, picture in _pictures(data, "Finding faces"):
        if isinstance(picture, str):
            broken.append(f"{name}: {picture}")
            continue
        found = _find(picture)
        if found.found:
            places[number] = found
            sizes.append(picture.size)
        else:
            without_face.append(name)
    if not places:
        raise ValueError(f"No face was found in {len(without_face):,} images, {len(broken):,} more are broken.")
    faces = Landmarks(
        torch.cat([each.points for each in places.values()]), torch.cat([each.confidence for each in places.values()])
    )
    seen = _as_cropped(faces, torch.tensor(sizes))
    framing = _framing(faces, seen, edge, eye_distance, eye_height)
    columns = read_columns(open_source(data))
    beyond, aligned, rows = [], [], []
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".writing-{folder.name}-") as temporary:
        writing = Path(temporary) / folder.name
        writing.mkdir()
        for number, name, picture in _pictures(data, "Aligning faces"):
            if number not in places or isinstance(picture, str):
                continue
            image, outside = _aligned(picture, places[number], framing)
            if outside > max_beyond:
                beyond.append(name)
                continue
            file = f"{number:06d}.png"
            image.save(writing / file)
            aligned.append(_find(image))
            rows.append({FILE_NAME: file} | {label: values[number] for label, values in columns.items()})
        if not aligned:
            raise ValueError(
                f"Each of the {len(beyond):,} faces needs more than {max_beyond} of its image from outside of its "
                "photo; pass a larger --eye_distance."
            )
        if columns:
            lines = "".join(json.dumps(row, default=str) + "\n" for row in rows)
            (writing / METADATA).write_text(lines)
        os.rename(writing, folder)
    after = Landmarks(torch.cat([each.points for each in aligned]), torch.cat([each.confidence for each in aligned]))
    before = Landmarks(seen.points * framing.edge, seen.confidence)
    return Alignment(
        framing,
        len(aligned),
        without_face,
        broken,
        beyond,
        Wander.of(before),
        Wander.of(after[after.found] if after.found.any() else after),
    )


def _pictures(data: DataConfig, doing: str) -> Iterator[tuple[int, str, Image.Image | str]]:
    """Number and name of each file of the source, and its image or a line that says what is wrong with it."""
    files = open_source(data).files()
    contents = tqdm(files.contents, doing, files.length, unit="image", disable=None)
    for number, (name, content) in enumerate(contents):
        yield number, printable(name), decode_whole(content)


def _find(picture: Image.Image) -> Landmarks:
    """The points of the face in one image, in its pixels."""
    shrink = max(1, min(picture.size) / SEARCH_EDGE)
    searched = picture
    if shrink > 1:
        size = [max(1, round(edge / shrink)) for edge in picture.size]
        searched = picture.resize((size[0], size[1]), Image.Resampling.BOX, reducing_gap=2)
    found = find_landmarks(to_float(picture_to_uint8(searched))[None])
    scale = torch.tensor([picture.width / searched.width, picture.height / searched.height])
    return Landmarks(found.points * scale, found.confidence)


def _as_cropped(faces: Landmarks, sizes: torch.Tensor) -> Landmarks:
    """The points in the largest centred squares of images of these `sizes` (N, 2), as shares of the squares' edges."""
    edges = sizes.min(1, keepdim=True).values  # (N, 1)
    return Landmarks((faces.points - ((sizes - edges) / 2)[:, None]) / edges[:, None], faces.confidence)


def _framing(
    faces: Landmarks, seen: Landmarks, edge: int | None, eye_distance: float | None, eye_height: float | None
) -> Framing:
    """The framing that is asked for, and that of the median image where nothing is. `seen` are the `faces` as shares
    of the images' edges."""
    median = seen.eye_distances.median().item(), seen.eye_centres[:, 1].median().item()
    distance, height = median if median[0] >= LEAST_DISTANCE else OF_PHOTOS
    distance, height = eye_distance or distance, eye_height or height
    natural = round(faces.eye_distances.median().item() / distance)
    return Framing(edge or min(natural, LARGEST_EDGE), distance, height)


def _aligned(picture: Image.Image, face: Landmarks, framing: Framing) -> tuple[Image.Image, float]:
    """The face turned, scaled and cropped, and the share of the result that lies outside of the image, where its
    mirrored edge is shown."""
    import cv2

    edge = framing.edge
    scale = framing.eye_distance * edge / face.eye_distances.item()
    reduced = max(1, int(1 / scale))  # Lanczos sees eight pixels, and would skip others
    picture = picture.reduce(reduced)
    scale *= reduced
    x, y = (face.eye_centres[0] / reduced - 0.5).tolist()  # to OpenCV, whole numbers are the middles of pixels
    matrix = cv2.getRotationMatrix2D((x, y), face.rolls.item(), scale)
    matrix[:, 2] += edge / 2 - 0.5 - x, framing.eye_height * edge - 0.5 - y
    pixels = np.asarray(picture)
    image = cv2.warpAffine(
        pixels, matrix, (edge, edge), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT
    )  # (edge, edge, 3)
    inside = cv2.warpAffine(np.ones(pixels.shape[:2], np.float32), matrix, (edge, edge))
    return Image.fromarray(image), 1 - float(inside.mean())
