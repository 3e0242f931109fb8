"""The prior with a code: a few numbers for the whole image first, then a flow of the latents given them."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..blocks import GROUPS, ResidualBlock, upsampling
from ..principal_components import PrincipalComponents
from ..running_average import move_average
from .base import DEFAULT_STEPS, Learning, Prior, PriorTraining, WhileLoop, learn, run_while
from .code_mixture import CodeMixture
from .flow import Flow, FlowTraining


CODE_DIM, CODE_GAUSSIANS = 128, 128
GUIDANCE, REST_TEMPERATURE = 2.5, 0.85  # what LFWcrop looks best with: model_cards/EXPERIMENTS.md
PATH_NOISE = 0.85  # least root mean square of the noise midway between two images: model_cards/EXPERIMENTS.md
CODE_SHARE = 0.3  # of the training updates; the flow takes the others
BATCH_RATIO = 4  # latents in an update of the flow, to those in one of the code, which decodes images
CODE_LEARNING_RATE = 1e-3
CODE_WEIGHT = 4096.0  # of the error against the KL, at the start
WEIGHT_RATE = 0.02  # how fast that weight follows the nats
LATENTS_WEIGHT = 0.02  # of the error of latents, beside that of images
CODE_LOGVAR_RANGE = (-10.0, 4.0)
CODE_AVERAGE_DECAY = 0.998
CODE_ENCODE_BATCH = 512
COARSEST = 4  # cells
MAX_WIDENING = 4  # of the channels, from the grid's own scale to the coarsest


Drawn = tuple[torch.Tensor, torch.Tensor]  # the latents that a code leads to expect, and their rest


class CodePrior(Prior):
    """A code and a flow. A mixture of Gaussians draws the code `(B, code_dim)`, which says what the image as a whole
    is. A network turns it into the latents that it leads to expect. Given these, a flow draws the rest of the latents.

    The code is that of a small VAE of the latents, whose error is measured in images. It is held at `code_nats` of
    information, so that it keeps to what matters most, and so that a mixture suffices to draw it. What people move
    along are the principal components of the code: the flow then draws the rest again, from the same noise. Latents
    are drawn given a code as in diffusion autoencoders (Preechakul et al. 2022).

    Args:
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid that they lie on; 1 for latents without a grid.
        code_dim: Numbers in the code.
        code_nats: Information of the code about an image, in nats, that training holds it at.
        code_gaussians: The most Gaussians that it is drawn from, see `CodeMixture`; with 1 it is drawn from N(0, I),
            along its principal components in standard deviations.
        code_width: Channels of its networks at the grid's own scale, a multiple of 8. They double at each coarser one.
        rest_temperature: Scale of the flow's noise in samples. Below 1, what the code does not say is more typical.
        rest_limit: Root mean square of the rest above which code and rest of a sample are drawn a second time. The
            shorter rest stays: malformed samples have the longest. None draws every sample once.
        rest_margin: Rings of cells at the edge of the grid that this length leaves out, as they show background.
        guidance: Strength of what the flow's network adds to its Gaussian, see `Flow`; 2.5 if None.
        guidance_rescale: As in `Flow`.
        flow_width: As in `Flow`.
        flow_mlp_width: As in `Flow`; also the features of the code's networks for latents without a grid.
        flow_depth: As in `Flow`.
        flow_directions: As in `Flow`.

    Raises:
        ValueError: If a size is not possible.
    """

    title = "code and flow (learned)"
    is_learned = True
    is_invertible = True
    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        code_dim: int = CODE_DIM,
        code_nats: float = 60.0,
        code_gaussians: int = CODE_GAUSSIANS,
        code_width: int = 64,
        rest_temperature: float = REST_TEMPERATURE,
        rest_limit: float | None = None,
        rest_margin: int = 0,
        guidance: float | None = None,
        guidance_rescale: float = 0.0,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
    ):
        super().__init__()
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim} is not possible; it must be at least 1.")
        if not code_nats > 0:
            raise ValueError(f"code_nats={code_nats} is not possible; it must be above 0.")
        if code_gaussians < 1:
            raise ValueError(f"code_gaussians={code_gaussians} is not possible; it must be at least 1.")
        if rest_limit is not None and not rest_limit > 0:
            raise ValueError(f"rest_limit={rest_limit} is not possible; it must be above 0.")
        if not 0 <= rest_margin <= (latent_size - 1) // 2:
            most = (latent_size - 1) // 2  # at least one cell is left
            raise ValueError(f"rest_margin={rest_margin} is not possible; it must be from 0 to {most}.")
        if code_width < GROUPS or code_width % GROUPS:
            raise ValueError(f"code_width={code_width} is not possible; it must be a multiple of {GROUPS}.")
        sizes = (latent_dim, latent_size, flow_width, flow_mlp_width, flow_depth, flow_directions)
        self.flow = Flow(*sizes, has_condition=True, guidance_rescale=guidance_rescale)
        self.latent_dim, self.latent_shape, self.code_dim = latent_dim, self.flow.latent_shape, code_dim
        self.code_nats, self.code_width = code_nats, code_width
        self.guidance = GUIDANCE if guidance is None else guidance
        self.rest_temperature, self.rest_limit, self.rest_margin = rest_temperature, rest_limit, rest_margin
        self.encoder, self.decoder = self._new_networks()
        self.code = PrincipalComponents(code_dim, code_dim)
        self.mixture = CodeMixture(code_dim, code_gaussians) if code_gaussians > 1 else None
        self.noise_scales_at(rest_temperature)  # refuses one that is not possible
        self.register_buffer("shift", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def _new_networks(self) -> tuple[nn.Module, nn.Module]:
        if len(self.latent_shape) == 1:
            width = self.flow.mlp_width
            return _mlp(self.latent_dim, width, 2 * self.code_dim), _mlp(self.code_dim, width, self.latent_dim)
        channels, size, _ = self.latent_shape
        return (
            _grid_encoder(channels, size, 2 * self.code_dim, self.code_width),
            _grid_decoder(channels, size, self.code_dim, self.code_width),
        )

    @property
    def num_draws(self) -> int:
        """Of the code and the rest of each sample."""
        return 1 if self.rest_limit is None else 2

    @property
    def num_choices(self) -> int:  # type: ignore[override]
        """One for each draw, of a Gaussian of the mixture."""
        return 0 if self.mixture is None else self.num_draws

    @property
    def noise_sizes(self) -> list[int]:
        """Of the code and of the flow, for each draw, and then of what chooses the Gaussian of each draw."""
        return [self.code_dim, self.latent_dim] * self.num_draws + [1] * self.num_choices

    @property
    def noise_scales(self) -> list[float]:
        return self.noise_scales_at(self.rest_temperature)

    def noise_scales_at(self, rest_temperature: float) -> list[float]:
        """The `noise_scales` with another temperature of the rest.

        Raises:
            ValueError: If it is below 0.
        """
        if not rest_temperature >= 0:
            raise ValueError(f"rest_temperature={rest_temperature} is not possible; it must be at least 0.")
        return [1.0, rest_temperature] * self.num_draws + [1.0] * self.num_choices

    def like_samples(self, rest: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The noise `rest` (..., Z) of images, a `share` (..., 1) of the way to noise of samples: with their
        temperature, and no longer than that of N(0, I) nearly always is. Guidance makes the noise of an image
        longer."""
        length = _length(rest)
        longest = 1 + 3 / math.sqrt(2 * rest.shape[-1])  # its mean and three standard deviations
        scale = (longest / length).clamp(max=min(1.0, self.rest_temperature))
        return rest * (1 + (scale - 1) * share)

    def no_softer(self, rest: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The noise `rest` (..., Z) between two images, a `share` (..., 1) of the way to one whose root mean square is
        at least 0.85. Encoded images have shorter noise: residual latents hold what it lacks. These fade between two
        images, which would be soft. Noise is in proportion to the calibration of the flow, so one that narrows latents
        needs less."""
        length, least = _length(rest).clamp(min=1e-6), PATH_NOISE * self.flow.std.mean().clamp(max=1)
        return rest * (1 + ((least / length).clamp(min=1) - 1) * share)

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        """The latents of a code `(..., code_dim)`, along its principal components in standard deviations, and of the
        flow's noise `(..., Z)`, as `to_noise` gives them.

        Samples of a prior with a `rest_limit` have two such pairs, `(B, code_dim)` and `(B, Z)`. If parts `(B, 1)`
        follow, one for each pair, they choose Gaussians of the mixture, which make codes of noise of N(0, 1)."""
        guidance = self.guidance if guidance is None else guidance
        num_draws = 1 if len(noise) < 4 else 2
        codes, rests, choices = noise[: 2 * num_draws : 2], noise[1 : 2 * num_draws : 2], noise[2 * num_draws :]

        def draw(number: int, rows: torch.Tensor | slice = slice(None)) -> Drawn:
            position, rest = codes[number][rows], rests[number][rows]
            if choices:
                assert self.mixture is not None
                position = self.mixture(position, choices[number][rows])
            code = self.code.mean + (position * self.code.stds) @ self.code.directions
            expected = self.expected(code)
            return expected, self.flow.sample(rest, num_steps, while_loop, expected, guidance)

        expected, rest = draw(0)
        if self.rest_limit is not None and num_draws > 1:
            expected, rest = self._shorter((expected, rest), self.rest_limit, lambda rows: draw(1, rows))
        return components.denormalised(expected + self.shift + self.scale * rest)

    def _shorter(self, first: Drawn, limit: float, draw_again: Callable[[torch.Tensor | slice], Drawn]) -> Drawn:
        """Samples, of which those with a rest above the `limit` are drawn again, by their numbers `(B',)`. The shorter
        rest stays."""
        length = self._inner_length(first[1])
        is_long = length > limit
        rows: torch.Tensor | slice = slice(None)
        if not torch.compiler.is_exporting():  # in a graph, whose shapes cannot depend on values, all are drawn again
            rows = is_long[:, 0].nonzero()[:, 0]
            if len(rows) == 0:
                return first
        second = draw_again(rows)
        is_better = is_long[rows] & (self._inner_length(second[1]) < length[rows])
        expected, rest = (part.clone() for part in first)
        expected[rows] = torch.where(is_better, second[0], expected[rows])
        rest[rows] = torch.where(is_better, second[1], rest[rows])
        return expected, rest

    def _inner_length(self, rest: torch.Tensor) -> torch.Tensor:
        """The root mean square of `rest` (B, Z) without the rings of `rest_margin`: `(B, 1)`."""
        margin = self.rest_margin
        if margin:
            rest = rest.unflatten(1, self.latent_shape)[..., margin:-margin, margin:-margin].flatten(1)
        return _length(rest)

    def to_noise(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        normalised = components.normalised(latents)
        code, _ = self.posterior(normalised)
        expected = self.expected(code)
        rest = (normalised - expected - self.shift) / self.scale
        guidance = self.guidance if guidance is None else guidance
        return [self.code.coordinates(code), self.flow.noise_of(rest, num_steps, expected, guidance)]

    def coordinates(
        self, latents: torch.Tensor, components: PrincipalComponents, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """The code of latents `(B, Z)` along its principal components, in standard deviations: `(B, code_dim)`. It is
        the mean of the posterior, or a draw from it with a `generator` (of the CPU)."""
        code, logvar = self.posterior(components.normalised(latents))
        if generator is not None:
            noise = torch.randn(code.shape, generator=generator).to(code.device)
            code = code + torch.exp(0.5 * logvar) * noise
        return self.code.coordinates(code)

    def posterior(self, normalised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and log-variance of the code, `(..., code_dim)` each, of normalised latents `(..., Z)`."""
        grids = normalised.flatten(0, -2).unflatten(1, self.latent_shape)
        mean, logvar = self.encoder(grids).float().unflatten(0, normalised.shape[:-1]).chunk(2, -1)
        return mean, logvar.clamp(*CODE_LOGVAR_RANGE)

    def expected(self, code: torch.Tensor) -> torch.Tensor:
        """The normalised latents `(..., Z)` that a code `(..., code_dim)` leads to expect."""
        return self.decoder(code.flatten(0, -2)).float().flatten(1).unflatten(0, code.shape[:-1])

    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        training = CodeTraining(self, latents.to(self.shift.device), components, seed, learning)
        learn(training, learning)
        training.finish()


class CodeTraining(PriorTraining):
    """A code that is being learned, and then the flow of the latents given it.

    The code's loss is that of a VAE (Kingma and Welling 2014), `weight * error + KL` in nats, where the weight follows
    the KL so that this becomes the prior's `code_nats`. The error is `Learning.image_error` between the images of the
    latents and of those that the code leads to expect, plus a small share of the squared error of the latents.

    Args:
        prior: What learns, from new random weights.
        latents: `(N, Z)`, on the device of the prior.
        components: Their principal components.
        seed: Seed of the first weights and of all noise.
        learning: How it is learned.
    """

    def __init__(
        self, prior: CodePrior, latents: torch.Tensor, components: PrincipalComponents, seed: int, learning: Learning
    ):
        device = latents.device
        self._latents, self._components, self._learning = components.normalised(latents), components, learning
        self._num_code_updates = round(CODE_SHARE * learning.num_updates)
        with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type):
            torch.manual_seed(seed)
            prior.encoder, prior.decoder = (network.to(device) for network in prior._new_networks())
        self._seed, self.prior = seed, prior
        self._networks = nn.ModuleList([prior.encoder, prior.decoder]).requires_grad_(True).train()
        self._averaged = copy.deepcopy(self._networks).requires_grad_(False)
        self._log_weight = torch.tensor(CODE_WEIGHT, device=device).log()
        self._optimizer = torch.optim.AdamW(
            self._networks.parameters(), lr=CODE_LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(1, self._num_code_updates))
        self._generator = torch.Generator(device).manual_seed(seed)
        self._flow_training: FlowTraining | None = None
        self._codes: tuple[torch.Tensor, torch.Tensor] | None = None
        self._heldout = None if learning.heldout is None else components.normalised(learning.heldout.to(device))
        self.losses: list[torch.Tensor] = []

    def update(self) -> None:
        if len(self.losses) < self._num_code_updates:
            self._update_code()
        else:
            flow = self._flow()
            flow.update()
            self.losses.append(flow.losses[-1])

    def _update_code(self) -> None:
        learning, prior, device = self._learning, self.prior, self._latents.device
        batch_size = max(1, learning.batch_size // BATCH_RATIO)
        chosen = torch.randint(len(self._latents), (batch_size,), generator=self._generator, device=device)
        latents = self._latents[chosen]
        with torch.autocast(device.type, torch.bfloat16, enabled=learning.in_bfloat16):
            mean, logvar = prior.posterior(latents)
            code = _drawn(mean, logvar, self._generator)
            expected = prior.expected(code)
            error = LATENTS_WEIGHT * (expected - latents).square().mean(1)
            if learning.image_error is not None:
                error = error + learning.image_error(
                    self._components.denormalised(expected), self._components.denormalised(latents)
                )
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        loss = self._log_weight.exp() * error.mean() + kl
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._networks.parameters(), 2000.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        with torch.no_grad():
            self._log_weight += WEIGHT_RATE * (1 - kl / prior.code_nats).clamp(-1, 1)
        move_average(self._averaged.state_dict(), self._networks.state_dict(), len(self.losses), CODE_AVERAGE_DECAY)
        self.losses.append(loss.detach() / prior.latent_dim)

    def _flow(self) -> FlowTraining:
        """The training of the flow, which starts when the code is learned."""
        if self._flow_training is None:
            self._finish_code()
            num_updates = max(1, self._learning.num_updates - self._num_code_updates)
            self._flow_training = FlowTraining(
                self.prior.flow, self._draw, num_updates, self._seed, self._learning, self._known()
            )
        return self._flow_training

    @torch.no_grad()
    def _known(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The rest and the condition of the held-out latents, as `_draw` gives them."""
        codes = self._heldout_codes()
        if self._heldout is None or codes is None:
            return None
        return self._rest_given(self._heldout, codes)

    @torch.no_grad()
    def _finish_code(self) -> None:
        """Gives the code's networks their averaged weights, and fits the Gaussians of the code and of the rest."""
        prior = self.prior
        self._networks.load_state_dict(self._averaged.state_dict())
        self._networks.eval().requires_grad_(False)
        parts = [prior.posterior(some) for some in self._latents.split(CODE_ENCODE_BATCH)]
        mean, logvar = (torch.cat(part) for part in zip(*parts, strict=True))
        self._codes = mean, logvar
        codes = _drawn(mean, logvar, torch.Generator(mean.device).manual_seed(self._seed))
        prior.code.fit(codes)
        self._fit_mixture(codes)
        rests = torch.cat(
            [
                latents - prior.expected(code)
                for latents, code in zip(
                    self._latents.split(CODE_ENCODE_BATCH), codes.split(CODE_ENCODE_BATCH), strict=True
                )
            ]
        )
        prior.shift.copy_(rests.mean(0))
        prior.scale.copy_(rests.std(0).clamp(min=1e-6))
        prior.flow.start_from((rests - prior.shift) / prior.scale)

    @torch.no_grad()
    def _fit_mixture(self, codes: torch.Tensor) -> None:
        """Fits the mixture to codes `(N, code_dim)`. Held-out latents choose its number of Gaussians."""
        prior = self.prior
        if prior.mixture is None:
            return
        known = self._heldout_codes()
        known = None if known is None else prior.code.coordinates(known)
        prior.mixture.fit(prior.code.coordinates(codes), known, self._seed)

    @torch.no_grad()
    def _heldout_codes(self) -> torch.Tensor | None:
        """A draw of the code of each held-out image `(M, code_dim)`. Its noise is not that of any training image, and
        is the same in a training that is resumed."""
        if self._heldout is None:
            return None
        mean, logvar = self.prior.posterior(self._heldout)
        return _drawn(mean, logvar, torch.Generator(mean.device).manual_seed(self._seed + 1))

    @torch.no_grad()
    def _draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """The normalised rest of so many latents and, as the condition, what a draw of their code leads to expect."""
        assert self._codes is not None
        device = self._latents.device
        chosen = torch.randint(len(self._latents), (count,), generator=generator, device=device)
        mean, logvar = (part[chosen] for part in self._codes)
        return self._rest_given(self._latents[chosen], _drawn(mean, logvar, generator))

    def _rest_given(self, latents: torch.Tensor, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What normalised `latents` (B, Z) have beyond those that their `code` leads to expect, normalised, and
        these."""
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=self._learning.in_bfloat16):
            expected = self.prior.expected(code)
        return (latents - expected - self.prior.shift) / self.prior.scale, expected

    def finish(self) -> None:
        """Leaves the prior as samples are drawn from it."""
        flow = self._flow()
        flow.finish(self.prior.guidance)
        self.kept = None if flow.kept is None else self._num_code_updates + flow.kept
        self.prior.eval().requires_grad_(False)

    def state(self) -> dict[str, Any]:
        return {
            "networks": self._networks.state_dict(),
            "averaged": self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "log_weight": self._log_weight,
            "generator": self._generator.get_state(),
            "losses": torch.stack(self.losses),
            "flow": None if self._flow_training is None else self._flow_training.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in (
            ("networks", self._networks),
            ("averaged", self._averaged),
            ("optimizer", self._optimizer),
            ("schedule", self._schedule),
        ):
            part.load_state_dict(state[name])
        self._log_weight.copy_(state["log_weight"])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"].to(self._latents.device))
        if state["flow"] is not None:
            self._flow().restore(state["flow"])


def _drawn(mean: torch.Tensor, logvar: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A draw from N(mean, exp(logvar)), `(B, code_dim)`."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return mean + torch.exp(0.5 * logvar) * noise


def _length(rest: torch.Tensor) -> torch.Tensor:
    """The root mean square of `rest` (..., Z): `(..., 1)`."""
    return rest.square().mean(-1, keepdim=True).sqrt()


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


def _scales(size: int, width: int) -> list[tuple[int, int]]:
    """Edge and channels of a grid at each scale. It is halved while it is even, down to 4 cells."""
    scales, widest = [(size, width)], MAX_WIDENING * width
    while size > COARSEST and size % 2 == 0:
        size, width = size // 2, min(2 * width, widest)
        scales.append((size, width))
    return scales


def _grid_encoder(channels: int, size: int, outputs: int, width: int) -> nn.Sequential:
    """Latents on a grid `(B, C, S, S)` to `(B, outputs)`."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), ResidualBlock(width), ResidualBlock(width)]
    for coarse_size, coarse in _scales(size, width)[1:]:
        layers += [nn.Conv2d(width, coarse, 4, stride=2, padding=1), ResidualBlock(coarse)]
        size, width = coarse_size, coarse
    layers += [nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Flatten(), nn.Linear(width * size**2, outputs)]
    return nn.Sequential(*layers)


def _grid_decoder(channels: int, size: int, inputs: int, width: int) -> nn.Sequential:
    """`(B, inputs)` to latents on a grid `(B, C, S, S)`."""
    (size, width), *finer = reversed(_scales(size, width))
    layers: list[nn.Module] = [nn.Linear(inputs, width * size**2), nn.Unflatten(1, (width, size, size))]
    layers += [ResidualBlock(width), ResidualBlock(width)]
    for _, fine in finer:
        layers += upsampling(width, fine)
        layers += [ResidualBlock(fine), ResidualBlock(fine)]
        width = fine
    layers += [nn.GroupNorm(GROUPS, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)]
    return nn.Sequential(*layers)
