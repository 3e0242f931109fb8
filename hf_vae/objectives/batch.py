"""What one training step works on: pictures, and all the chance that goes with them."""

from collections.abc import Callable

import numpy as np
import torch


class Batch:
    """This rank's share of one batch, and the source of every random number that its augmentation and its steps use.

    Those numbers follow from the run's seed, the batch's number and a picture's place in the whole batch, and from
    nothing else. So a resumed run draws what the run that was killed would have drawn, and two processes with half a
    batch each draw what one process draws for the whole.

    Args:
        images: `(B, C, H, W)` in [-1, 1].
        seed: Seed of the run.
        number: How many batches came before it in the run.
        rank: Which share this is.
        num_ranks: How many shares the batch has.
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
        """`(B, columns)` draws from N(0, 1); new ones with every call."""
        return self._rows(torch.randn, columns)

    def uniform(self, columns: int) -> torch.Tensor:
        """`(B, columns)` draws from [0, 1); new ones with every call."""
        return self._rows(torch.rand, columns)

    def mean_over_ranks(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a detached scalar over all shares of the batch. All ranks call it."""
        if self._num_ranks == 1:
            return value
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total / self._num_ranks

    def _rows(self, draw: Callable[..., torch.Tensor], columns: int) -> torch.Tensor:
        rows = draw(len(self) * self._num_ranks, columns, generator=self._generator, device=self.images.device)
        return rows[len(self) * self._rank : len(self) * (self._rank + 1)]
