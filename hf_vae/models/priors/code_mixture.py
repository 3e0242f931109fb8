"""The mixture of Gaussians that codes are drawn from."""

import math
from typing import NamedTuple

import torch
from torch import nn

from .mixture import HELDOUT, choose, clusters


MAX_CODES = 50_000  # that it is fitted to
CODE_ROUNDS = 20  # of expectation and maximisation, and of k-means before these: more take long and gain 0.1 nats
CODE_TOLERANCE = 1e-2  # rounds end when the mean log-likelihood rises by less
MIN_CODE_VARIANCE = 1e-6  # added to every variance, so that no direction is lost


class CodeGaussians(NamedTuple):
    """A mixture of M Gaussians of one covariance over codes `(N, C)`.

    Args:
        weights: Their shares `(M,)`, which sum to 1.
        means: `(M, C)`.
        root: A lower triangular R `(C, C)` of their covariance R R^T.
    """

    weights: torch.Tensor
    means: torch.Tensor
    root: torch.Tensor

    @classmethod
    def fitted(cls, codes: torch.Tensor, num_gaussians: int, generator: torch.Generator) -> "CodeGaussians":
        """The mixture of M Gaussians that expectation and maximisation (Dempster et al. 1977) fit to `codes` (N, C),
        from the clusters of k-means."""
        groups = clusters(codes, num_gaussians, generator, CODE_ROUNDS)
        shares = nn.functional.one_hot(groups, num_gaussians).to(codes.dtype)
        mixture, before = cls.of_shares(codes, shares), -math.inf
        for _ in range(CODE_ROUNDS):
            joint = mixture.joint_log_likelihoods(codes)
            found = joint.logsumexp(1).mean().item()
            if found - before < CODE_TOLERANCE:
                break
            mixture, before = cls.of_shares(codes, joint.softmax(1)), found
        return mixture

    @classmethod
    def of_shares(cls, codes: torch.Tensor, shares: torch.Tensor) -> "CodeGaussians":
        """The mixture of highest likelihood for `codes` (N, C) of which each Gaussian takes `shares` (N, M)."""
        counts = shares.sum(0) + 10 * torch.finfo(codes.dtype).eps  # (M,)
        means = shares.T @ codes / counts[:, None]
        covariance = (codes.T @ codes - (means.T * counts) @ means) / len(codes)
        covariance.diagonal().add_(MIN_CODE_VARIANCE)
        return cls(counts / counts.sum(), means, torch.linalg.cholesky(covariance))

    def log_likelihoods(self, codes: torch.Tensor) -> torch.Tensor:
        """The natural logarithm of the density at `codes` (N, C): `(N,)`."""
        return self.joint_log_likelihoods(codes).logsumexp(1)

    def joint_log_likelihoods(self, codes: torch.Tensor) -> torch.Tensor:
        """The logarithm of each Gaussian's weight times its density at `codes` (N, C): `(N, M)`."""
        white_codes, white_means = (
            torch.linalg.solve_triangular(self.root, points.T, upper=False).T for points in (codes, self.means)
        )
        scale = self.root.diagonal().log().sum() + 0.5 * codes.shape[1] * math.log(2 * math.pi)
        return self.weights.log() - 0.5 * torch.cdist(white_codes, white_means).square() - scale


class CodeMixture(nn.Module):
    """A mixture of up to M Gaussians that share a covariance, over codes `(N, C)`: `weights` (M,), `means` (M, C) and
    `root` (C, C). Before it is fitted it is N(0, I).

    With one covariance for all, M Gaussians need little more than their means. So many of them can be fitted to a few
    thousand codes.

    Args:
        code_dim: Numbers C in a code.
        num_gaussians: The most Gaussians M.
    """

    weights: torch.Tensor
    means: torch.Tensor
    root: torch.Tensor

    def __init__(self, code_dim: int, num_gaussians: int):
        super().__init__()
        self.register_buffer("weights", torch.eye(1, num_gaussians)[0])
        self.register_buffer("means", torch.zeros(num_gaussians, code_dim))
        self.register_buffer("root", torch.eye(code_dim))

    def forward(self, noise: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
        """Codes `(B, C)` from noise of N(0, 1), `noise` (B, C) and `choice` (B, 1), which chooses the Gaussian."""
        return self.means[choose(self.weights, choice)] + noise @ self.root.T

    @torch.no_grad()
    def fit(self, codes: torch.Tensor, heldout: torch.Tensor | None = None, seed: int = 0) -> None:
        """Fits mixtures of 1, 4, 16 and more Gaussians, up to M, to `codes` (N, C). It keeps the one that gives the
        highest likelihood to codes `heldout` (K, C); without these, to a tenth of the codes that none was fitted to.
        Of more than 50,000 codes, it takes so many at random."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(codes), generator=generator)[:MAX_CODES]
        fitted = codes[order.to(codes.device)].cpu().double()
        if heldout is None:
            num_heldout = max(1, round(HELDOUT * len(fitted)))
            known, fitted = fitted[:num_heldout], fitted[num_heldout:]
        else:
            known = heldout.cpu().double()
        most = len(self.weights)
        sizes = [*(4**power for power in range(most.bit_length()) if 4**power < most), most]
        mixtures = [CodeGaussians.fitted(fitted, size, generator) for size in sizes if size <= len(fitted)]
        best = max(mixtures, key=lambda mixture: mixture.log_likelihoods(known).mean())
        self.weights.zero_()[: len(best.weights)] = best.weights
        self.means.zero_()[: len(best.means)] = best.means
        self.root.copy_(best.root)
