"""The priors of a model: the one table of them, and the module that holds those of one model."""

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor

from ..interpolation import slerp
from ..principal_components import NUM_DIRECTIONS, PrincipalComponents
from .base import DEFAULT_STEPS, Learning, Prior
from .code import CodePrior
from .flow import FlowPrior
from .gaussian import GaussianPrior
from .mixture import MixturePrior
from .standard import StandardPrior


PRIORS: dict[str, type[Prior]] = {
    "code": CodePrior,
    "flow": FlowPrior,
    "mixture": MixturePrior,
    "gaussian": GaussianPrior,
    "standard": StandardPrior,
}

LINE, CIRCLE, CODE = "lerp", "slerp", "code"
PATHS = (LINE, CIRCLE, *(kind for kind, prior in PRIORS.items() if prior.is_invertible))

if TYPE_CHECKING:  # type checkers read only literals that are written out
    PriorKind = str
    DecoderPriorKind = str
    PathKind = str
else:
    PriorKind = Literal[tuple(PRIORS)]
    # of a family without an encoder, whose latents are N(0, I)
    DecoderPriorKind = Literal[tuple(kind for kind, prior in PRIORS.items() if not prior.needs_encoder)]
    PathKind = Literal[PATHS]


def priors_of(own: str, has_encoder: bool) -> list[str]:
    """The priors that a model's samples can usefully be drawn from, given its own one: more than that only where there
    were encoded images to fit them to."""
    return [kind for kind, prior in PRIORS.items() if kind == own or (has_encoder and not prior.is_learned)]


class LatentPrior(PrincipalComponents):
    """What a model knows of its latents `(B, Z)`: their principal components, and the priors that samples are drawn
    from. It holds every prior of `PRIORS` except those that take training updates; of these it holds the model's own.

    Args:
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid that they lie on; 1 for latents without a grid.
        kind: The model's own prior.
        sizes: Sizes of the priors, by the names of their arguments. Other names are ignored, so that a model's whole
            configuration can be passed. Sizes that are missing have their defaults.
    """

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        kind: str = "standard",
        sizes: Mapping[str, Any] | None = None,
    ):
        sizes = sizes or {}
        super().__init__(latent_dim, sizes.get("num_directions", NUM_DIRECTIONS))
        self.kind = kind
        self._sizes = {**sizes, "latent_dim": latent_dim, "latent_size": latent_size}
        for name, prior in PRIORS.items():
            if name == kind or not prior.is_learned:
                self.add_module(name, self._new(name))

    def _new(self, kind: str) -> Prior:
        arguments = inspect.signature(PRIORS[kind].__init__).parameters
        return PRIORS[kind](**{name: value for name, value in self._sizes.items() if name in arguments})

    @property
    def kinds(self) -> list[str]:
        """The priors that are there, in the order of `PRIORS`."""
        return [kind for kind in PRIORS if getattr(self, kind, None) is not None]

    @property
    def paths(self) -> list[str]:
        """The kinds of path that `path` can take."""
        return [kind for kind in PATHS if kind not in PRIORS or kind in self.kinds]

    @property
    def default_path(self) -> str:
        """The kind of path that is taken unless another one is asked for: through the code where there is one. Among
        the others, most shipped models generate sharper images halfway on the circle than on the line."""
        return CODE if CODE in self.kinds else CIRCLE

    @property
    def sliders(self) -> PrincipalComponents:
        """What `move` moves along: the principal components of the code where there is one, else those of the
        latents."""
        code = self._modules.get(CODE)
        return code.code if isinstance(code, CodePrior) else self

    def get(self, kind: str) -> Prior:
        """The prior of a kind.

        Raises:
            ValueError: If there is no such kind, or this model has no prior of it.
        """
        if kind not in PRIORS:
            raise ValueError(f"prior={kind!r} is unknown; choose one of {', '.join(PRIORS)}.")
        if kind not in self.kinds:
            raise ValueError(f"prior={kind!r} is not possible: this model has no {kind} prior. {_choose(self.kinds)}")
        return getattr(self, kind)

    def drop_learned(self) -> None:
        """Removes the priors that take training updates. `fit_priors` makes the model's own one again."""
        for kind in self.kinds:
            if PRIORS[kind].is_learned:
                delattr(self, kind)

    def fit_priors(self, latents: torch.Tensor, seed: int = 0, learning: Learning | None = None) -> None:
        """Fits the principal components and every prior to `latents` (N, Z). A prior that takes training updates is
        fitted if `learning` says how.

        Raises:
            ValueError: If there are fewer than two latents.
        """
        self.fit(latents)
        if learning is not None and self.kind not in self.kinds:
            self.add_module(self.kind, self._new_without_a_trace().to(self.mean.device))
        for kind in self.kinds:
            if learning is not None or not PRIORS[kind].is_learned:
                getattr(self, kind).fit(latents, self, seed, learning or Learning())

    def _new_without_a_trace(self) -> Prior:
        """A new prior of the model's own kind, without a change of the global random state."""
        with torch.random.fork_rng(devices=[]):
            return self._new(self.kind)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        kind: str = "gaussian",
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        code: tuple[torch.Tensor, torch.Tensor] | None = None,
        rest_temperature: float | None = None,
    ) -> torch.Tensor:
        """Draws latents `(num_samples, Z)`.

        Args:
            num_samples: How many.
            kind: The prior to draw from, one of `kinds`.
            generator: Source of the noise, see `draw_noise`.
            temperature: Scale of the noise. At 0 a Gaussian gives its mean, a mixture the mean of one of its
                Gaussians, and a flow the latents of zero noise.
            num_steps: Number of steps of a flow. Other priors ignore it.
            guidance: Strength of what a flow's network adds to its Gaussian; the model's own if None. Other priors
                ignore it.
            code: The Gaussian to draw the code from, in place of its mixture: its mean `(code_dim,)` and a root R
                `(code_dim, code_dim)` of its covariance R R^T, along the principal components of the code, in
                standard deviations.
            rest_temperature: Scale of the noise of what the code does not say; the model's own if None.

        Raises:
            ValueError: If the model has no prior of this kind, `num_samples` or `num_steps` is below 1, or
                `rest_temperature` is below 0. If there is a `code` or a `rest_temperature` and another kind.
        """
        if code is not None and kind != CODE:
            raise ValueError(f"prior={kind!r} draws no code, which labels are given by; draw from the prior {CODE!r}.")
        if num_samples < 1:
            raise ValueError(f"{num_samples} samples cannot be drawn; ask for at least 1.")
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} is not possible; it must be at least 1.")
        prior = self.get(kind)
        scales = prior.noise_scales
        if rest_temperature is not None:
            if not isinstance(prior, CodePrior):
                raise ValueError(
                    f"rest_temperature={rest_temperature} is not possible with prior={kind!r}, which draws no code; "
                    f"draw from the prior {CODE!r}, or set temperature."
                )
            scales = prior.noise_scales_at(rest_temperature)
        parts = self.draw_noise(num_samples, kind, generator)
        noise = [scale * part for part, scale in zip(parts, scales, strict=True)]
        num_scaled = len(noise) - prior.num_choices
        noise = [temperature * part for part in noise[:num_scaled]] + noise[num_scaled:]
        if code is not None:
            mean, root = (part.to(noise[0]) for part in code)
            noise = noise[:num_scaled]  # no Gaussian of the mixture is chosen
            noise[::2] = [mean + position @ root.T for position in noise[::2]]  # of each draw
        return prior.from_noise(noise, self, num_steps, guidance=guidance)

    def draw_noise(
        self,
        num_samples: int,
        kind: str,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> list[torch.Tensor]:
        """Noise of N(0, 1) that the prior `kind` makes so many samples from: a part `(num_samples, size)` for each of
        its `noise_sizes`. All parts of a sample are drawn before those of the next. So the first samples of a
        generator are the same, however many follow.

        Args:
            num_samples: How many.
            kind: One of `kinds`.
            generator: One generator, or one for each sample; the global one if None. One of the CPU gives the same
                noise on any device.

        Raises:
            ValueError: If the model has no prior of this kind, or there are several generators, but not `num_samples`.
        """
        if isinstance(generator, list) and len(generator) != num_samples:
            raise ValueError(
                f"{len(generator)} generators cannot draw {num_samples} samples; pass one, or one for each."
            )
        generators: list[torch.Generator | None] = (
            [*generator] if isinstance(generator, list) else [generator] * num_samples
        )
        sizes, device, dtype = self.get(kind).noise_sizes, self.mean.device, torch.float32  # half draws other numbers
        drawn = [[randn_tensor((1, size), each, device, dtype) for size in sizes] for each in generators]
        return [torch.cat(part).to(self.mean.dtype) for part in zip(*drawn, strict=True)]

    @torch.no_grad()
    def path(
        self,
        starts: torch.Tensor,
        ends: torch.Tensor,
        num_points: int,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> torch.Tensor:
        """Evenly spaced points from `starts` (..., Z) to `ends` (..., Z), both included: `(..., num_points, Z)`.

        "lerp" is the straight line. "slerp" is the great circle around `mean`, with each latent in standard
        deviations. The name of a prior, such as "flow", is the great circle between the noises that this prior makes
        the two from. Every point of it is as likely as the ends, and is not a double exposure of both. "code" is one
        of these, with a circle for the code and another for the noise of the rest. Midway, the root mean square of
        this noise is at least 0.85, or less if the flow narrows latents. Guidance plays no part in it.

        Args:
            starts: Latents.
            ends: As many latents.
            num_points: Number of points, at least 2.
            kind: One of `paths`; `default_path` if None.
            num_steps: Number of steps of a flow, there and back.

        Raises:
            ValueError: If the model has no such path, or `num_points` is below 2.
        """
        if num_points < 2:
            raise ValueError(f"A path needs at least 2 points; got {num_points}.")
        kind = kind or self.default_path
        if kind not in PATHS:
            raise ValueError(f"Interpolation {kind!r} is unknown; choose one of {', '.join(PATHS)}.")
        if kind not in self.paths:
            raise ValueError(
                f"Interpolation {kind!r} is not possible: this model has no {kind} prior. {_choose(self.paths)}"
            )
        weights = torch.linspace(0, 1, num_points, device=starts.device)[:, None]  # (num_points, 1)
        starts, ends = starts[..., None, :], ends[..., None, :]  # (..., 1, Z)
        if kind == LINE:
            return torch.lerp(starts, ends, weights)
        if kind == CIRCLE:
            return self.denormalised(slerp(self.normalised(starts), self.normalised(ends), weights))
        prior = self.get(kind)
        # without guidance, which makes the noise of an image longer than that of N(0, I), and the middle too sharp
        parts = zip(*(prior.to_noise(latents, self, num_steps, 1.0) for latents in (starts, ends)), strict=True)
        noise = [slerp(first, last, weights) for first, last in parts]
        if isinstance(prior, CodePrior):
            noise[1] = prior.no_softer(noise[1], 1 - (2 * weights - 1).abs())
        points = prior.from_noise(noise, self, num_steps, guidance=1.0)
        # there and back in steps is not quite the identity: the error at either end is subtracted
        points = points + torch.lerp(starts - points[..., :1, :], ends - points[..., -1:, :], weights)
        return torch.cat([starts, points[..., 1:-1, :], ends], -2)

    @torch.no_grad()
    def noise_of_code(self, latents: torch.Tensor, num_steps: int = DEFAULT_STEPS) -> list[torch.Tensor] | None:
        """The noise of latents `(B, Z)` that `move` starts from, for latents that move several times; None if there is
        no code."""
        return self.get(CODE).to_noise(latents, self, num_steps) if CODE in self.kinds else None

    @torch.no_grad()
    def move(
        self,
        latents: torch.Tensor,
        shifts: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Moves latents `(B, Z)`, or one `(1, Z)` for all, along the first K components of `sliders` by `shifts`
        (B, K), in standard deviations: `(B, Z)`. With a code, the rest is drawn again for the moved code, from
        the same noise, which becomes like that of samples as the shift grows. `noise` is what `noise_of_code`
        gave for these latents and steps, if it is at hand: finding it is about half of the work."""
        shifts = shifts.to(latents)
        count = shifts.shape[1]
        prior = self._modules.get(CODE)
        if prior is None:
            return latents + (shifts * self.stds[:count]) @ self.directions[:count]
        assert isinstance(prior, CodePrior)
        code, rest = noise or prior.to_noise(latents, self, num_steps)
        size = max(len(latents), len(shifts))
        shifts = shifts.expand(size, -1)
        moved = code.expand(size, -1) + F.pad(shifts, (0, code.shape[1] - count))
        as_far = 1 - torch.exp(-shifts.square().sum(1, keepdim=True) / 2)  # from 0 to 1
        noises = torch.cat([prior.like_samples(rest, as_far), rest])
        codes = torch.cat([moved, code])
        drawn, as_before = prior.from_noise([codes, noises], self, num_steps).tensor_split([size])
        return latents + drawn - as_before  # as on a path: without a shift, latents stay as they are


def _choose(names: list[str]) -> str:
    return f"Choose {', '.join(names[:-1])} or {names[-1]}." if len(names) > 1 else f"Choose {names[0]}."
