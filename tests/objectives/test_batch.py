"""Chance: it follows from the run's seed, the batch's number and the place in the batch, and from nothing else."""

import pytest
import torch

from hf_vae.objectives.batch import Batch


IMAGES = torch.zeros(12, 3, 4, 4)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_all_ranks_together_draw_what_one_would(num_ranks):
    whole = Batch(IMAGES, seed=3, number=7)
    shares = [
        Batch(images, seed=3, number=7, rank=rank, num_ranks=num_ranks)
        for rank, images in enumerate(IMAGES.chunk(num_ranks))
    ]
    for draw in ("normal", "uniform", "normal"):  # one after the other: each call draws anew
        expected = getattr(whole, draw)(5)
        assert expected.shape == (12, 5)
        assert torch.equal(torch.cat([getattr(share, draw)(5) for share in shares]), expected)


@pytest.mark.parametrize("other", [{"seed": 4}, {"number": 8}, {"seed": 7, "number": 3}])
def test_another_seed_or_batch_draws_something_else(other):
    one, another = Batch(IMAGES, seed=3, number=7), Batch(IMAGES, **{"seed": 3, "number": 7, **other})
    assert not torch.equal(one.normal(5), another.normal(5))


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = Batch(IMAGES).normal(5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(Batch(IMAGES).normal(5), first)


def test_draws_are_standard():
    batch = Batch(torch.zeros(1000, 1, 1, 1))
    normal, uniform = batch.normal(10), batch.uniform(10)
    assert abs(normal.mean()) < 0.05 and abs(normal.std() - 1) < 0.05
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02


def test_one_share_needs_no_other_rank_for_a_mean():
    assert Batch(IMAGES).mean_over_ranks(torch.tensor(3.0)) == 3
