"""Images that are read during training, for datasets larger than the memory or the disk. Nothing is cached.

Each rank holds in memory a shuffle buffer of `shuffle_buffer` encoded images, at most one row group of a parquet file,
and a few decoded batches.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, cycle, islice
from typing import Any, NamedTuple

import torch

from ..config import DataConfig
from ..pictures import picture_mode, to_float
from .cached import DataSplits, ImageSet
from .decoding import DecodedFile, Tally, content_digest, decode_file
from .presets import with_preset
from .rows import NamedContent, row_content
from .sources import Parts, open_source
from .split import Split, refuse_other_images


HELDOUT_LIMIT = 2000  # images held out, which stay decoded in memory
JUDGED_AFTER = 1000  # files; the share of broken ones is taken of at least so many: see `Tally`
ROWS_READ = 64  # of which the encoded images are in memory at a time while some are held out
BATCHES_AHEAD = 2  # decoded while the one before is trained on


class _Row(NamedTuple):
    """An encoded image: the number of its part, its number in that part, and what `datasets` stores of it."""

    part: int
    number: int
    value: dict[str, Any] | None


class ImageStream:
    """The training images of a source that is read again in each epoch. Their number is not known.

    A broken image is named once and skipped; a copy of a held-out image is skipped, too. Another image of the same
    batch takes its place. So positions are counted without decoding anything, and the order of images does not depend
    on where a run was interrupted.

    Args:
        parts: The source.
        decode: Decodes a file, given its name and its content, or a line that says why it has none.
        shuffle_buffer: Rows that are shuffled among.
    """

    def __init__(self, parts: Parts, decode: Callable[[str, bytes | str], DecodedFile], shuffle_buffer: int):
        self._parts, self._decode, self._shuffle_buffer = parts, decode, shuffle_buffer
        self._heldout_places: set[tuple[int, int]] = set()
        self._heldout_digests: set[str] = set()
        self._tally = Tally()  # previews and training may count at the same time: a count that is lost does no harm

    def to(self, device: torch.device) -> "ImageStream":
        """The same stream: its images stay off the device."""
        return self

    def hold_out(
        self, every: int, first: int, split: Split | None = None, known: Split | None = None
    ) -> dict[str, torch.Tensor]:
        """Holds images out of this stream, which is read from its beginning to find them.

        Args:
            every: One of so many rows is held out, up to 2,000.
            first: The number of the first of them, from 0.
            split: The split that a run recorded. Its held-out images are held out, wherever they are now.
            known: The split of the model that a run starts from. Its training images are not held out, and its
                held-out images are not trained on. The split of a stream lists no training images. If some of its
                held-out images are found, no others are held out.

        Returns:
            The held-out images that are neither broken nor copies, by their digests: uint8 `(C, H, W)` each.

        Raises:
            ValueError: If fewer than two images are found, or none are left to train on.
        """
        trained, known_heldout = (set(known.train), set(known.heldout)) if known else (set(), set())
        wanted = set(split.heldout) if split else set()
        rows = self._rows(range(self._parts.count))
        if split is None:
            rows = islice(rows, first + (HELDOUT_LIMIT - 1) * every + 1)
        images: dict[str, torch.Tensor] = {}
        places: dict[str, tuple[int, int]] = {}  # the first of each content, which is the same whatever comes after
        numbered = enumerate(rows)
        with ThreadPoolExecutor() as pool:
            while chunk := list(islice(numbered, ROWS_READ)):  # their encoded images are in memory
                files = list(pool.map(self._read_row, [row for _, row in chunk]))
                digests = pool.map(content_digest, [content for _, content in files])
                chosen = []
                for (number, row), file, digest in zip(chunk, files, digests, strict=True):
                    if not split or digest in wanted:
                        places.setdefault(digest, (row.part, row.number))
                    is_due = number % every == first and digest not in trained
                    if digest in wanted if split else is_due or digest in known_heldout:
                        chosen.append(file)
                decoded = pool.map(lambda file: self._decode(*file), chosen)
                images |= dict(self._usable(decoded))
                if split and wanted <= images.keys():
                    break
            if known and not known.train and known_heldout & images.keys():
                images = {digest: image for digest, image in images.items() if digest in known_heldout}
            self._heldout_places = {places[digest] for digest in images}
            self._heldout_digests = known_heldout | images.keys()
            can_train = any(self._images(pool, [row]) for row in self._training_rows(range(self._parts.count)))
        if not can_train or (len(images) < 2 and not split):
            raise ValueError(
                "Too few distinct images were found to train on some and hold out others. One in "
                f"{every} is held out, from number {first + 1} on."
                + "".join(f"\n  {line}" for line in self._tally.broken)
            )
        return images

    def batches(self, num_images: int, batch_size: int = 256) -> Iterator[torch.Tensor]:
        """Up to `num_images` from the start of the unshuffled stream, without broken ones, in batches of floats
        `(B, C, H, W)` in [-1, 1]."""
        rows = islice(self._training_rows(range(self._parts.count)), num_images)
        with ThreadPoolExecutor() as pool:
            while chunk := list(islice(rows, batch_size)):
                if images := self._images(pool, chunk):
                    yield to_float(torch.stack(images))

    def training_batches(
        self, batch_size: int, seed: int, first_image: int = 0, rank: int = 0, num_ranks: int = 1
    ) -> Generator[torch.Tensor, None, None]:
        """An endless series of batches for this rank: uint8 `(batch_size, C, H, W)` each.

        As with an `ImageSet`, the batches of all ranks are consecutive pieces of one endless sequence of epochs. Every
        image is seen once an epoch. A batch in which an epoch ends is filled from the next epoch, so at that border
        ranks may be in different epochs. A run resumes by starting at `first_image`, with any number of ranks. Each
        rank reads all images for this, and decodes only its own.

        Seed and epoch decide the order of the parts of the source, whose rows go through a shuffle buffer. To start at
        `first_image`, the rows before it in its epoch are read again, without decoding. If the first epoch was over,
        it is read once more to count its rows.

        Args:
            batch_size: Images in each batch.
            seed: Seed of the run.
            first_image: Number of images that all ranks together have seen before.
            rank: Number of this process, from 0.
            num_ranks: Number of processes.

        Raises:
            ValueError: If more than 1% of the images are broken.
        """
        decoded = self._decoded_batches(batch_size, seed, first_image, rank, num_ranks)
        reader = ThreadPoolExecutor(1)
        try:
            ahead = deque(reader.submit(next, decoded) for _ in range(BATCHES_AHEAD))
            while True:
                batch = ahead.popleft().result()
                ahead.append(reader.submit(next, decoded))
                yield batch
        finally:
            reader.shutdown(cancel_futures=True)
            decoded.close()

    def _decoded_batches(
        self, batch_size: int, seed: int, first_image: int, rank: int, num_ranks: int
    ) -> Generator[torch.Tensor, None, None]:
        rows: Iterator[_Row] = self._endless_rows(seed, first_image + rank * batch_size)
        others = (num_ranks - 1) * batch_size
        with ThreadPoolExecutor() as pool:
            while True:
                images = self._images(pool, list(islice(rows, batch_size)))
                while not images:  # only in a tiny batch: look ahead until an image is usable or too many are broken
                    following = list(islice(rows, batch_size))
                    rows = chain(following, rows)
                    images = self._images(pool, following)
                yield torch.stack(list(islice(cycle(images), batch_size)))
                next(islice(rows, others, others), None)  # skips what the other ranks train on

    def _endless_rows(self, seed: int, first: int) -> Iterator[_Row]:
        """The rows of one epoch after the other, from position `first` on."""
        epoch = 0
        while True:
            length = 0
            for row in self._shuffled_rows(random.Random(f"{seed} {epoch}")):
                if length >= first:
                    yield row
                length += 1
            epoch, first = epoch + max(1, first // length), max(0, first - length) % length

    def _shuffled_rows(self, order: random.Random) -> Iterator[_Row]:
        """The training rows of an epoch.

        `IterableDataset.shuffle` is not used: it took ten times as long and, for a buffer of 10,000 images of 20 kB,
        1,200 MB; and its buffer has to stay below 2 GB ("offset overflow").
        """
        buffer: list[_Row] = []
        for row in self._training_rows(order.sample(range(self._parts.count), self._parts.count)):
            buffer.append(row)
            if len(buffer) > self._shuffle_buffer:
                place = order.randrange(len(buffer))
                buffer[place], buffer[-1] = buffer[-1], buffer[place]
                yield buffer.pop()
        order.shuffle(buffer)
        while buffer:
            yield buffer.pop()

    def _training_rows(self, parts: Iterable[int]) -> Iterator[_Row]:
        return (row for row in self._rows(parts) if (row.part, row.number) not in self._heldout_places)

    def _rows(self, parts: Iterable[int]) -> Iterator[_Row]:
        for part in parts:
            for number, value in enumerate(self._parts.read_part(part)):
                yield _Row(part, number, value)

    def _images(self, pool: ThreadPoolExecutor, rows: list[_Row]) -> list[torch.Tensor]:
        decoded = pool.map(lambda row: self._decode(*self._read_row(row)), rows)
        return [image for digest, image in self._usable(decoded) if digest not in self._heldout_digests]

    def _usable(self, files: Iterable[DecodedFile]) -> Iterator[tuple[str, torch.Tensor]]:
        """Digest and image of the files that are not broken. All files are counted."""
        for file in files:
            self._tally.count(file)
            if file.image is not None:
                yield file.digest, file.image
                continue
            if file.problem and self._tally.broken[file.problem] == 1:
                print(f"Skipped a broken image: {file.problem}")
            self._tally.refuse_broken(JUDGED_AFTER)

    def _read_row(self, row: _Row) -> NamedContent:
        # a file that cannot be read is an error and not a broken image: a resumed run might read it
        name = f"row {row.number}" + f" of part {row.part}" * (self._parts.count > 1)
        return row_content(row.value, name, self._parts.read)


def open_stream(
    data: DataConfig,
    image_size: int,
    image_channels: int,
    split: Split | None = None,
    exact: bool = True,
    known: Split | None = None,
) -> DataSplits:
    """Opens the images that `data` names as an `ImageStream`, and holds some out.

    Every k-th image of the unshuffled source is held out, up to 2,000 images. k is 1 / `validation_fraction`, rounded,
    and the first held-out image is number `split_seed` modulo k. So the first 2,000 k images, or all if there are
    fewer, are read once before training begins.

    Args:
        data: Where the images are, and how they are shuffled and split.
        image_size: Edge of the square images, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        split: The split that a run recorded. Its held-out images must be found again.
        exact: See `refuse_other_images`.
        known: The split of the model that a run starts from; see `ImageStream.hold_out`.

    Raises:
        ValueError: If `data` names no source or two, the source or its image column does not exist, a setting is not
            possible, or there are too few images to train on some and hold out others.
    """
    picture_mode(image_channels)  # refuses an impossible number of channels, before any image is blamed for it
    data = with_preset(data)
    every = round(1 / data.validation_fraction) if 0 < data.validation_fraction < 1 else 0
    if every < 2:
        raise ValueError(
            f"validation_fraction={data.validation_fraction} is not possible with --streaming, which holds out every "
            "k-th image; choose a value above 0 and up to 0.5, such as 0.1."
        )
    if data.shuffle_buffer < 1:
        raise ValueError(f"shuffle_buffer={data.shuffle_buffer} is not possible; it must be at least 1.")
    decode = partial(decode_file, image_size=image_size, channels=image_channels, crop_box=data.crop_box)
    parts = open_source(data).parts()
    for notice in parts.notices:
        print(notice)
    stream = ImageStream(parts, decode, data.shuffle_buffer)
    images = stream.hold_out(every, data.split_seed % every, split, known)
    if split:
        refuse_other_images(split, sorted(images), sorted(images), data.place, exact)
    found = Split((), tuple(sorted(images)))
    heldout = torch.stack([images[digest] for digest in found.heldout])
    facts = {"heldout": len(heldout)} | ({"left_out": parts.left_out} if parts.left_out else {})
    return DataSplits(stream, ImageSet(heldout, torch.arange(len(heldout))), facts, found)
