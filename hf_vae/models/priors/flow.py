"""The flow: a network that carries noise to latents, and the prior that is such a flow."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from torch import nn

from ..principal_components import PrincipalComponents, principal_components
from ..running_average import move_average
from .base import DEFAULT_STEPS, Learning, Prior, PriorTraining, State, WhileLoop, learn, run_while


UNET_GROUPS = 16
MAX_FLOW_DEPTH = 64  # what bounds the number of layers that a few bytes of configuration can ask for
MIN_VARIANCE = 1e-6  # along the directions, so that the velocity is finite at the latents themselves
LEARNING_RATE = 1e-3
AVERAGE_DECAY = 0.999
CALIBRATION_SAMPLES = 2048
HELDOUT_UPDATES = 250  # from one measurement of the error on held-out latents to the next

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Draw = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor | None]]


class Flow(nn.Module):
    """Flow matching (Lipman et al. 2023; the straight paths of Liu et al. 2023) on normalised latents `(B, Z)`: a UNet
    of diffusers for latents on a grid, a residual MLP for latents without a grid.

    It predicts the velocity `noise - latents` at the point `(1 - t) latents + t noise`. Following it backwards from
    noise, at `t = 1`, to `t = 0` gives latents. The velocity is that of a Gaussian plus what the network adds. The
    Gaussian has the variances `variances` (K,) along its principal components `directions` (K, Z), and their mean
    `rest` (1,) along all others. A learned velocity takes latents too close to their mean; so they are normalised once
    more, with the `mean` and `std` (Z,) that `calibrate` finds.

    What the network adds can be strengthened: `gaussian + guidance * added`, the guidance of a model by a weaker one
    (Karras et al. 2024), in which the Gaussian is the weaker one and costs nothing. Samples are then more typical. But
    some of the latents get too long. At each time, the velocity points at an estimate of the latents. With
    `guidance_rescale`, this estimate has the length that it has without guidance (after Lin et al. 2024, section 3.4).

    A flow may have a condition: other latents `(B, Z)`, which its network sees beside the point.

    Args:
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid that they lie on; 1 for latents without a grid.
        flow_width: Channels of the UNet at its finest scale, a multiple of 16.
        flow_mlp_width: Features of the MLP.
        flow_depth: Residual blocks of the UNet at each scale; the MLP has twice as many.
        flow_directions: The most principal components of the Gaussian; K is the smaller of this and Z.
        has_condition: Whether it has a condition.
        guidance_rescale: From 0, for guidance as it is, to 1, for the whole of this correction.

    Raises:
        ValueError: If a size or `guidance_rescale` is not possible.
    """

    directions: torch.Tensor
    variances: torch.Tensor
    rest: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        has_condition: bool = False,
        guidance_rescale: float = 0.0,
    ):
        super().__init__()
        if not 1 <= flow_depth <= MAX_FLOW_DEPTH:
            raise ValueError(f"flow_depth={flow_depth} is not possible; it must be from 1 to {MAX_FLOW_DEPTH}.")
        if flow_width < UNET_GROUPS or flow_width % UNET_GROUPS:
            raise ValueError(f"flow_width={flow_width} is not possible; it must be a multiple of {UNET_GROUPS}.")
        if flow_mlp_width < 16 or flow_mlp_width % 16:
            raise ValueError(f"flow_mlp_width={flow_mlp_width} is not possible; it must be a multiple of 16.")
        if flow_directions < 1:
            raise ValueError(f"flow_directions={flow_directions} is not possible; it must be at least 1.")
        if not 0 <= guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale={guidance_rescale} is not possible; it must be from 0 to 1.")
        self.latent_dim, self.latent_size, self.has_condition = latent_dim, latent_size, has_condition
        self.guidance_rescale = guidance_rescale
        self.width, self.mlp_width, self.depth = flow_width, flow_mlp_width, flow_depth
        self.latent_shape = (
            (latent_dim // latent_size**2, latent_size, latent_size) if latent_size > 1 else (latent_dim,)
        )
        self.network = self._new_network()
        num_directions = min(latent_dim, flow_directions)
        self.register_buffer("directions", torch.eye(num_directions, latent_dim))
        self.register_buffer("variances", torch.ones(num_directions))
        self.register_buffer("rest", torch.ones(1))
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("std", torch.ones(latent_dim))

    def _new_network(self) -> nn.Module:
        inputs = 2 if self.has_condition else 1
        if self.latent_size > 1:
            return _unet(inputs, self.latent_shape[0], self.latent_size, self.width, self.depth)
        return FlowMLP(inputs * self.latent_dim, self.latent_dim, self.mlp_width, 2 * self.depth)

    def forward(
        self,
        points: torch.Tensor,
        times: torch.Tensor,
        condition: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """The velocity `(B, Z)` at `points` (B, Z) and `times` (B,) in [0, 1]."""
        gaussian, added = self.gaussian_velocity(points, times), self.added_velocity(points, times, condition)
        guided = gaussian + guidance * added
        if self.guidance_rescale == 0 or guidance == 1:
            return guided
        longer = _lengthening(points, times[:, None], gaussian + added, guided)
        return guided + (self.guidance_rescale * longer).to(points.dtype)

    def gaussian_velocity(self, points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """The expectation of `noise - latents` if latents are the Gaussian, `(B, Z)`. Along a direction of the
        variance v it is `(t - (1 - t) v) / ((1 - t)^2 v + t^2)` times the point."""
        kept, noise = 1 - times[:, None], times[:, None]
        slopes, rest = (
            ((noise - kept * variance) / (kept.square() * variance + noise.square())).to(points.dtype)
            for variance in (self.variances, self.rest)
        )  # (B, K) and (B, 1)
        return rest * points + (slopes - rest) * F.linear(points, self.directions) @ self.directions

    def added_velocity(
        self, points: torch.Tensor, times: torch.Tensor, condition: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the network adds to that, `(B, Z)`. Its input has the variance 1 at any time (after Karras et al. 2022,
        section 5)."""
        scale = ((1 - times).square() + times.square()).sqrt()[:, None]
        seen = (points / scale).to(points.dtype).unflatten(1, self.latent_shape)
        if condition is not None:
            seen = torch.cat([seen, condition.to(points.dtype).unflatten(1, self.latent_shape)], 1)
        added = self.network(seen, 1000 * times, return_dict=False)[0].flatten(1)
        return (added / scale).to(points.dtype)

    @torch.no_grad()
    def start_from(self, latents: torch.Tensor) -> None:
        """Takes the Gaussian from normalised `latents` (N, Z)."""
        variances, directions = principal_components(latents.cpu().double().T.cov().reshape(2 * [self.latent_dim]))
        count = len(self.variances)
        self.directions.copy_(directions[:count])
        self.variances.copy_(variances[:count].clamp(min=MIN_VARIANCE))
        if count < len(variances):
            self.rest.copy_(variances[count:].mean().clamp(min=MIN_VARIANCE))

    def shifted(self, times: torch.Tensor) -> torch.Tensor:
        """Times in [0, 1] of any shape, moved to where latents take shape (Esser et al. 2024, section 5.3.2).

        A direction of the standard deviation s emerges from the noise where `t / (1 - t)` is s. So that ratio is
        multiplied by the geometric mean of s over the directions of the Gaussian, weighted by their variance. Times
        move towards the noise where few directions hold most of the variance. For N(0, I) they stay.
        """
        variances = torch.cat([self.variances, self.rest.expand(self.directions.shape[1] - len(self.variances))])
        ratio = ((variances * variances.log()).sum() / variances.sum() / 2).exp()
        return (times * ratio / (1 - times + times * ratio)).to(times.dtype)

    def sampling_times(self, num_steps: int = DEFAULT_STEPS) -> torch.Tensor:
        """The times `(num_steps + 1,)` from noise, 1, to latents, 0, between which the steps of `sample` lie.

        Raises:
            ValueError: If `num_steps` is below 1.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps} is not possible; it must be at least 1.")
        return self.shifted(torch.linspace(1, 0, num_steps + 1, device=self.rest.device))

    def sample(
        self,
        noise: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        condition: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """Carries `noise` (..., Z) of N(0, I) to normalised latents `(..., Z)`. The calibration is for the default
        number of steps and the guidance of `calibrate`; more steps are more exact and draw about the same latents."""
        carried = self._carry(noise, self.sampling_times(num_steps), condition, guidance, while_loop)
        return (carried - self.mean) / self.std

    def noise_of(
        self,
        latents: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        condition: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """Carries normalised `latents` (..., Z) back to the noise `(..., Z)` that `sample` makes them from, up to the
        error of the steps."""
        times = self.sampling_times(num_steps).flip(0)
        return self._carry(latents * self.std + self.mean, times, condition, guidance)

    def calibrate(self, noise: torch.Tensor, condition: torch.Tensor | None = None, guidance: float = 1.0) -> None:
        """Sets `mean` and `std` to those of the latents that `noise` (N, Z) becomes. Latents are normalised with them
        from then on, as those are that the flow learned from."""
        carried = self._carry(noise, self.sampling_times(), condition, guidance)
        self.mean.copy_(carried.mean(0))
        self.std.copy_(carried.std(0))

    @torch.no_grad()
    def _carry(
        self,
        points: torch.Tensor,
        times: torch.Tensor,
        condition: torch.Tensor | None,
        guidance: float,
        while_loop: WhileLoop = run_while,
    ) -> torch.Tensor:
        condition = None if condition is None else condition.expand_as(points).flatten(0, -2)

        def velocity(points: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            return self(points, times, condition, guidance)

        return integrate(velocity, points.flatten(0, -2), times, while_loop).view(points.shape)


class FlowPrior(Flow, Prior):
    """A flow of the latents themselves. The arguments are those of `Flow`, and its usual `guidance`, 1 if None."""

    title = "flow (learned)"
    is_learned = True
    is_invertible = True

    def __init__(
        self,
        latent_dim: int,
        latent_size: int = 1,
        flow_width: int = 48,
        flow_mlp_width: int = 512,
        flow_depth: int = 2,
        flow_directions: int = 512,
        guidance: float | None = None,
        guidance_rescale: float = 0.0,
    ):
        sizes = (latent_dim, latent_size, flow_width, flow_mlp_width, flow_depth, flow_directions)
        super().__init__(*sizes, guidance_rescale=guidance_rescale)
        self.guidance = 1.0 if guidance is None else guidance

    @property
    def noise_sizes(self) -> list[int]:
        return [self.latent_dim]

    def from_noise(
        self,
        noise: Sequence[torch.Tensor],
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        while_loop: WhileLoop = run_while,
        guidance: float | None = None,
    ) -> torch.Tensor:
        guidance = self.guidance if guidance is None else guidance
        return components.denormalised(self.sample(noise[0], num_steps, while_loop, guidance=guidance))

    def to_noise(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
    ) -> list[torch.Tensor]:
        guidance = self.guidance if guidance is None else guidance
        return [self.noise_of(components.normalised(latents), num_steps, guidance=guidance)]

    def fit(
        self,
        latents: torch.Tensor,
        components: PrincipalComponents,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
    ) -> None:
        normalised = components.normalised(latents.to(self.rest.device))

        def draw(count: int, generator: torch.Generator) -> tuple[torch.Tensor, None]:
            chosen = torch.randint(len(normalised), (count,), generator=generator, device=normalised.device)
            return normalised[chosen], None

        self.start_from(normalised)
        heldout = learning.heldout
        known = None if heldout is None else (components.normalised(heldout.to(self.rest.device)), None)
        training = FlowTraining(self, draw, learning.num_updates, seed, learning, known)
        learn(training, learning)
        training.finish(self.guidance)


class FlowTraining(PriorTraining):
    """A flow that is being learned, with its optimizer and its running average.

    The loss is the squared error of the velocity, averaged over latents (Lipman et al. 2023, equation 23), at times
    drawn from the logistic of N(0, 1) (Esser et al. 2024, section 3.1) and shifted.

    With held-out latents, the running average is measured on them every 250 updates and after the last one, always
    with the same noise and times. The weights with the lowest error are kept.

    Args:
        flow: What learns, from new random weights. Its Gaussian is fitted already.
        draw: Draws so many normalised latents `(B, Z)`, and the condition `(B, Z)` of each or None, from a generator.
        num_updates: Number of updates in all, which the learning rate follows.
        seed: Seed of the first weights and of all noise.
        learning: The batch size, the precision and the dropout.
        heldout: Normalised latents `(M, Z)` that are not learned from, and the condition `(M, Z)` of each or None.
    """

    def __init__(
        self,
        flow: Flow,
        draw: Draw,
        num_updates: int,
        seed: int = 0,
        learning: Learning = Learning(),  # noqa: B008 (it is frozen)
        heldout: tuple[torch.Tensor, torch.Tensor | None] | None = None,
    ):
        device = flow.rest.device
        self._heldout, self._seed, self._num_updates = heldout, seed, num_updates
        self._lowest: float | None = None
        self._best: dict[str, torch.Tensor] = {}
        self._draw, self._device, self._learning = draw, device, learning
        self.flow = flow.requires_grad_(True).train()
        with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type):
            torch.manual_seed(seed)
            flow.network = flow._new_network().to(device)
        for module in flow.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = learning.dropout
        self.averaged = copy.deepcopy(flow).requires_grad_(False)
        self._optimizer = torch.optim.AdamW(flow.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, num_updates)
        self._generator = torch.Generator(device).manual_seed(seed)
        self.losses: list[torch.Tensor] = []

    def update(self) -> None:
        device, flow, batch_size = self._device, self.flow, self._learning.batch_size
        latents, condition = self._draw(batch_size, self._generator)
        noise = self.noise(batch_size)
        times = flow.shifted(torch.randn(batch_size, generator=self._generator, device=device).sigmoid())
        points = torch.lerp(latents, noise, times[:, None])
        with torch.autocast(device.type, torch.bfloat16, enabled=self._learning.in_bfloat16):
            added = flow.added_velocity(points, times, condition)
        velocity = flow.gaussian_velocity(points, times) + added.float()
        loss = (velocity - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        move_average(self.averaged.state_dict(), flow.state_dict(), len(self.losses), AVERAGE_DECAY)
        self.losses.append(loss.detach())
        if len(self.losses) % HELDOUT_UPDATES == 0 or len(self.losses) == self._num_updates:
            self._compare()

    def _compare(self) -> None:
        """Keeps the running average if no earlier one had a lower error on held-out latents."""
        error = self.heldout_error()
        if error is not None and (self._lowest is None or error < self._lowest):
            self._lowest, self.kept = error, len(self.losses)
            self._best = copy.deepcopy(self.averaged.state_dict())

    @torch.no_grad()
    def heldout_error(self) -> float | None:
        """The mean squared error of the velocity of the running average on held-out latents, None without any."""
        if self._heldout is None:
            return None
        latents, condition = self._heldout
        generator = torch.Generator(self._device).manual_seed(self._seed)
        noise = torch.randn(latents.shape, generator=generator, device=self._device)
        times = torch.randn(len(latents), generator=generator, device=self._device).sigmoid()
        times = self.averaged.shifted(times)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._learning.in_bfloat16):
            velocity = self.averaged.eval()(torch.lerp(latents, noise, times[:, None]), times, condition)
        return (velocity.float() - (noise - latents)).square().mean().item()

    def noise(self, rows: int) -> torch.Tensor:
        """The next `(rows, Z)` of N(0, I)."""
        return torch.randn(rows, self.flow.latent_dim, generator=self._generator, device=self._device)

    def finish(self, guidance: float = 1.0) -> None:
        """Gives the flow its averaged weights, and calibrates it for sampling with `guidance`."""
        self.flow.load_state_dict(self._best or self.averaged.state_dict())
        self.flow.eval().requires_grad_(False)
        _, condition = self._draw(CALIBRATION_SAMPLES, self._generator)
        self.flow.calibrate(self.noise(CALIBRATION_SAMPLES), condition, guidance)

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()} | {
            "generator": self._generator.get_state(),
            "losses": torch.stack(self.losses),
            "best": self._best,
            "lowest": self._lowest,
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._generator.set_state(state["generator"])
        self.losses = list(state["losses"].to(self._device))
        self._best = {name: value.to(self._device) for name, value in state["best"].items()}
        self._lowest, self.kept = state["lowest"], state["kept"]

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "flow": self.flow,
            "averaged": self.averaged,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }


def _lengthening(points: torch.Tensor, time: torch.Tensor, plain: torch.Tensor, guided: torch.Tensor) -> torch.Tensor:
    """What gives the latents that the velocity `guided` points at the length of those that `plain` points at, (B, Z)
    each: it is to be added to `guided`. Latents x and lengths |x| give `(|guided x| - |plain x|) / (t |guided x|)`
    times the guided x. Written so, it has no division by the time t (B, 1), which may be 0."""
    plain_ends, guided_ends = points - time * plain, points - time * guided
    plain_length, length = (torch.linalg.vector_norm(ends, dim=1, keepdim=True) for ends in (plain_ends, guided_ends))
    gain = ((plain - guided) * (plain_ends + guided_ends)).sum(1, keepdim=True)  # (|guided x|^2 - |plain x|^2) / t
    return gain / (length * (length + plain_length)).clamp(min=1e-12) * guided_ends


def integrate(
    velocity: Velocity,
    points: torch.Tensor,
    times: torch.Tensor,
    while_loop: WhileLoop = run_while,
) -> torch.Tensor:
    """Carries points along a velocity field by the two-step Adams-Bashforth method: each step is as cheap as one of
    Euler's, and its error is of second order.

    Args:
        velocity: Takes points `(B, Z)` and times `(B,)`, and gives the velocity `(B, Z)`.
        points: Where they start, `(B, Z)`.
        times: From the first to the last one, `(N + 1,)` for N steps.
        while_loop: `torch.while_loop` for a graph that holds one loop instead of N steps in a row.

    Returns:
        The points at the last time, `(B, Z)`.
    """
    steps = times.diff()

    def is_unfinished(index: torch.Tensor, points: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return (index < len(steps)).all()

    def advance(index: torch.Tensor, points: torch.Tensor, before: torch.Tensor) -> State:
        now = velocity(points, times[index].expand(len(points)))
        step, last_step = steps[index], steps[(index - 1).clamp(min=0)]
        slope = torch.where(index == 0, 0, (now - before) / last_step)
        return index + 1, (points + step * (now + step / 2 * slope)).to(points.dtype), now

    first = torch.zeros(1, dtype=torch.long, device=points.device)
    return while_loop(is_unfinished, advance, (first, points.clone(), torch.zeros_like(points)))[1]


class FlowMLP(nn.Module):
    """Residual blocks over `(B, num_inputs)`, each of which gets the time."""

    def __init__(self, num_inputs: int, num_outputs: int, width: int, num_blocks: int):
        super().__init__()
        time_channels = width // 8
        self.embed_time = nn.Sequential(
            Timesteps(time_channels, flip_sin_to_cos=True, downscale_freq_shift=0),
            nn.Linear(time_channels, width),
            nn.SiLU(),
        )
        self.first = nn.Linear(num_inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(num_blocks)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_outputs))

    def forward(self, points: torch.Tensor, times: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        """Takes and returns what diffusers' UNets do: points, times in [0, 1000], and a tuple of the velocity."""
        time = self.embed_time[1:](self.embed_time[0](times).to(points.dtype))
        hidden = self.first(points)
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return (self.last(F.silu(hidden)),)


def _unet(inputs: int, channels: int, latent_size: int, width: int, depth: int) -> nn.Module:
    """A UNet that halves the grid while it is even, down to 4 cells. It has no attention: at its coarsest scale, each
    cell sees nearly all others anyway, and on a CPU attention would take as long as all the rest."""
    # imported here: it takes a second, and only a flow on a grid needs it
    from diffusers.models.unets.unet_2d import UNet2DModel

    levels = 1
    while latent_size % 2**levels == 0 and latent_size >> levels >= 4 and levels < 3:
        levels += 1
    return UNet2DModel(
        sample_size=latent_size,
        in_channels=inputs * channels,
        out_channels=channels,
        block_out_channels=tuple(width * min(2**level, 2) for level in range(levels)),
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        layers_per_block=depth,
        norm_num_groups=UNET_GROUPS,
        add_attention=False,
    )
