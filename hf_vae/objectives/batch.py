"""One training batch: its images, and the source of all random numbers that go with them."""

from collections.abc import Callable

import numpy as np
import torch


class Batch:
    """This rank's share of one batch, and the source of every random number that its augmentation and steps use.

    These numbers depend only on the run's seed, the batch's number and an image's position in the whole batch. So a
    resumed run draws the same numbers as an uninterrupted one, and two processes with half a batch each draw the same
    numbers as one process with all of it.

    Args:
        images: `(B, C, H, W)` in [-1, 1].
        seed: Seed of the run.
        number: Number of batches before this one in the run.
        rank: Index of this share.
        num_ranks: Number of shares of the batch.
    """

    def __init__(self, images: torch.Tensor, seed: int = 0, number: int = 0, rank: int = 0, num_ranks: int = 1):
        self.images = images
        self.number = number
        self._rank, self._num_ranks = rank, num_ranks
        mixed = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
        self._generator = torch.Generator(images.device).manual_seed(mixed)

    def __len__(self) -> int:
        return len(self.images)

    def normal(self, columns: int) -> torch.Tensor:
        """`(B, columns)` random numbers from N(0, 1); new ones with every call."""
        return self._rows(torch.randn, columns)

    def uniform(self, columns: int) -> torch.Tensor:
        """`(B, columns)` random numbers from [0, 1); new ones with every call."""
        return self._rows(torch.rand, columns)

    def mean_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a detached scalar over all shares of the batch. All ranks must call it."""
        if self._num_ranks == 1:
            return value
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total / self._num_ranks

    def _rows(self, draw: Callable[..., torch.Tensor], columns: int) -> torch.Tensor:
        rows = draw(len(self) * self._num_ranks, columns, generator=self._generator, device=self.images.device)
        return rows[len(self) * self._rank : len(self) * (self._rank + 1)]
