"""The contract of every family: images to flat latents and back, and samples from the prior inside the model."""

import inspect
import os
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import CONFIG_NAME, BaseOutput
from safetensors.torch import load_file

from .detail import Detail
from .formats import FORMAT_VERSION, VERSION_KEY, upgraded_config, upgraded_weights, version_of
from .loading import HUB_OPTIONS, LATENT_STATISTICS, LoadError, checked_folder, device_of_map, index_name
from .priors import CODE, DEFAULT_STEPS, LatentPrior, priors_of
from .standalone import PIPELINE_CONFIG, pipeline_config, standalone_source


if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


FITTED_PARTS = ("latent_prior", "detail")  # of a model: what is fitted once its networks are trained
ROUND_TRIP_BATCH = 64  # images


@dataclass
class EncoderOutput(BaseOutput):
    """What `encode` returns.

    Args:
        latents: The latents of each image, `(B, Z)`, without noise: the posterior mean where there is a posterior. In
            a model with residual latents these follow, `(B, Z + D)`.
        logvar: Log-variance of the posterior around the first Z latents, `(B, Z)`, or None in a family without a
            posterior. Residual latents have no variance.
        latent_shape: The shape of these Z latents on their grid, `ImageGenerator.latent_shape`, where there is a
            posterior.
    """

    latents: torch.Tensor
    logvar: torch.Tensor | None = None
    latent_shape: tuple[int, int, int] | None = None

    @property
    def latent_dist(self) -> "DiagonalGaussianDistribution":
        """The posterior, as diffusers' autoencoders return it. `sample(generator)` and `mode()` give latents
        `(B, Z / S^2, S, S)` on the grid of S x S cells, `(B, Z, 1, 1)` without a grid; `decode` takes these too.
        Residual latents are not part of it.

        Raises:
            AttributeError: In a family without a posterior.
        """
        if self.logvar is None or self.latent_shape is None:
            raise AttributeError("This family has no posterior: take `latents`.")
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution  # the import takes a second

        mean = self.latents[:, : self.logvar.shape[1]]
        parameters = [values.unflatten(1, self.latent_shape) for values in (mean, self.logvar)]
        return DiagonalGaussianDistribution(torch.cat(parameters, 1))


@dataclass
class DecoderOutput(BaseOutput):
    """The output of `decode`. diffusers' class of this name is the same, but its import takes a second.

    Args:
        sample: Images `(B, C, H, W)`, in [-1, 1] up to what the network overshoots.
    """

    sample: torch.Tensor


class ImageGenerator(ModelMixin, ConfigMixin):  # type: ignore[misc]  # the two disagree about config_name
    """A small image generator with a latent space you can explore by hand.

    Images are `(B, C, H, W)` floats in [-1, 1]. Latents are flat, `(B, Z)`. A family's `__init__` signature is its
    configuration. It has at least `image_size`, `image_channels`, `latent_dim`, `output_size` and `prior`, and builds
    `self.decoder` and, if the family encodes, `self.encoder`. The `LatentPrior` is a part of the model, so that
    `config.json` and one safetensors file are the whole model. A family may also have `self.detail`, whose residual
    latents follow the Z that the networks know, `(B, Z + D)`. `decode` takes latents with or without them; samples
    have none. `forward` is the training path, and returns every tensor that the family's objective needs.

    Args:
        image_size: Edge of the square images that the network works at, in pixels.
        image_channels: 3 for colour, 1 for greyscale.
        latent_dim: Number of latents Z.
        latent_size: Edge of the grid of cells that the latents lie on, where each cell sees its own part of the image.
            1 for latents without a grid, each of which describes the whole image.
        width: Channels at the finest scale; doubled at each coarser one.
        max_width: Maximum number of channels.
        block: "residual" (GroupNorm, nearest-neighbour upsampling) or "plain" (4x4 strided and transposed convolutions
            and BatchNorm).
        shortcut: Add a linear path from each cell's pixels to its latents and back, in parallel with the networks.
            Plain blocks, and latents without a grid, have none.
        detail_dim: Number of residual latents, which store the part of an encoded image that the networks miss, by a
            linear map of each cell of the grid. They are fitted after training, and samples have none. 0 for none.
        output_size: Edge of the generated images, in pixels, if it differs from image_size.
        prior: The distribution that samples are drawn from. It is fitted after training: "code" (a few numbers for the
            whole image, which sliders move, and a network that draws the latents given these), "flow" (a network that
            draws the latents), "mixture" (of Gaussians) or "gaussian". "standard" is N(0, I) and is not fitted.
        code_dim: Numbers in the code.
        code_nats: Information of the code about an image, in nats.
        code_gaussians: Maximum number of Gaussians that the code is drawn from. They share a covariance.
        code_width: Channels of the code's networks, at the scale of the grid.
        rest_temperature: Scale of the noise in samples that what the code does not say is drawn from. Below 1, samples
            are whole more often, and softer.
        rest_limit: Root mean square of this rest, in standard deviations, above which a sample is drawn a second time.
            The shorter rest stays: malformed samples have the longest. None draws every sample once.
        rest_margin: Rings of cells at the edge of the grid that `rest_limit` leaves out, as they show background.
        guidance: Strength of what a flow's network adds to its Gaussian when samples are drawn. Above 1 they are more
            typical, below 1 more varied. None for the prior's own, 2.5 of "code" and 1 of "flow".
        guidance_rescale: How much of the length that guidance adds to the latents of samples is taken away again, from
            0 for none to 1 for all.
        num_directions: Maximum number of principal components, which sliders move along.
        num_gaussians: Maximum number of Gaussians in the mixture prior.
        flow_width: Channels of the flow's UNet at its finest scale, for latents on a grid.
        flow_mlp_width: Features of the flow's MLP, for latents without a grid.
        flow_depth: Residual blocks at each scale of the flow's UNet; its MLP has twice as many.
        flow_directions: Maximum number of principal components of the Gaussian that the flow starts from.
        round_trips: How many times the latents of a sample are decoded, and this image encoded, before the final image
            is decoded. Where the prior drew half of a shape, the encoder reads a whole one. It helps with latents that
            hold few nats, and costs a little variety.
        encoder_layers: The encoder layer by layer, see `hf_vae.models.listed_layers`. It replaces width, max_width,
            block, shortcut and latent_size.
        decoder_layers: The same for the decoder.
    """

    has_encoder: ClassVar[bool] = True
    main_input_name = "images"  # of `forward`, for diffusers' tools
    _supports_gradient_checkpointing = True  # in the residual blocks
    config: Any  # the arguments of `__init__`, as keys and as attributes
    decoder: torch.nn.Module

    if TYPE_CHECKING:  # diffusers wraps it so that a type checker loses its type

        def to(self, *args: Any, **kwargs: Any) -> Self: ...  # type: ignore[override]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # only of our own modules is it known that they can travel; a class of a notebook stays where it is
        cls._auto_class = "AutoModel" if cls.__module__.rpartition(".")[0] == __package__ else None

    def __init__(self, latent_dim: int, latent_size: int = 1, prior: str = "standard"):
        super().__init__()
        self.register_to_config(**{VERSION_KEY: FORMAT_VERSION})
        if self.num_round_trips < 0:
            raise ValueError(f"round_trips={self.num_round_trips} is not possible; it must be at least 0.")
        self._latent_size = latent_size
        self.latent_prior = LatentPrior(latent_dim, latent_size, prior, self.config)
        self.detail: Detail | None = None

    @classmethod
    def from_pretrained(  # type: ignore[override]  # of diffusers' classes, which also take None
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> Self:
        """Loads a model from a folder or a Hub id, in evaluation mode. It works as in diffusers' models, but reads
        only safetensors, and only a model as this class, or an earlier version of it, writes it. No code of the folder
        is run.

        Args:
            pretrained_model_name_or_path: Folder or Hub id.
            kwargs: Those of diffusers' `from_pretrained`. The whole model goes to the one device of `device_map`;
                "auto" is the accelerator, if there is one.

        Raises:
            LoadError: If there is no such model, it is of another class or a newer format, or its configuration or
                weights are incomplete, too large or not finite; see `hf_vae.models.loading`. If `device_map` does not
                name one device of this machine. It is a `ValueError` and, as diffusers' error, an `OSError`.
        """
        if kwargs.pop("use_safetensors", None) is False:
            raise LoadError("use_safetensors=False is not possible: a pickle can hold any program.")
        device_map = kwargs.pop("device_map", None)
        device = None if device_map is None else device_of_map(device_map)
        folder = checked_folder(cls, pretrained_model_name_or_path, **kwargs)
        options = {name: value for name, value in kwargs.items() if name not in (*HUB_OPTIONS, "subfolder")}
        if cls._keep_in_fp32_modules is None:  # diffusers needs it for these
            # it would need accelerate, and spares small networks nothing
            options.setdefault("low_cpu_mem_usage", False)
        loaded = super().from_pretrained(folder, use_safetensors=True, **options)
        model: Self = loaded[0] if isinstance(loaded, tuple) else loaded
        is_here = Path(os.path.expanduser(pretrained_model_name_or_path)).is_dir()
        # what the next config.json says: a Hub id, or the name of a folder without its path on this machine
        model.register_to_config(
            _name_or_path=folder.resolve().name if is_here else str(pretrained_model_name_or_path)
        )
        model.register_latent_statistics()
        model = model if device is None else model.to(device)
        # with output_loading_info, as diffusers returns it
        return (model, *loaded[1:]) if isinstance(loaded, tuple) else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Saves the model to a folder as diffusers' models do, and the code that it needs beside the weights. Where
        this package is not installed, diffusers' `AutoModel` loads the folder with `trust_remote_code=True`."""
        save_directory = os.path.expanduser(save_directory)
        self.register_latent_statistics()
        if is_main_process and self._auto_class:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            self.save_source(Path(save_directory))
        if is_main_process:  # diffusers leaves it, and would look for the files that it removes
            Path(save_directory, index_name(kwargs.get("variant"))).unlink(missing_ok=True)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            for weights in Path(save_directory).glob("diffusion_pytorch_model*.safetensors"):
                shutil.copymode(Path(save_directory, CONFIG_NAME), weights)  # made for its owner alone by safetensors

    def register_latent_statistics(self) -> None:
        """Writes to the configuration what diffusers' autoencoders say there of their latents: `latents_mean` and
        `latents_std` of each channel of the grid, or of each latent without a grid. They are those of the latents that
        the prior was fitted to. `(latents - latents_mean) / latents_std` has a mean of 0 and a variance of 1, so
        `scaling_factor` is 1. A family without an encoder has none of these."""
        if self.has_encoder:
            mean, variances = (
                values.float().unflatten(0, (self.latent_shape[0], -1))
                for values in (self.latent_prior.mean, self.latent_prior.variances)
            )
            variance = variances.mean(1) + mean.var(1, correction=0)
            rounded = ([round(value, 6) for value in values.tolist()] for values in (mean.mean(1), variance.sqrt()))
            self.register_to_config(**dict(zip(LATENT_STATISTICS, (*rounded, 1.0), strict=True)))

    @classmethod
    def save_source(cls, folder: Path) -> None:
        """Writes only that code, under the name that diffusers writes into `config.json`, and the `model_index.json`
        that `DiffusionPipeline.from_pretrained` reads."""
        module = cls.__module__.rpartition(".")[2]
        (folder / f"{module}.py").write_text(standalone_source(cls.__module__))
        (folder / PIPELINE_CONFIG).write_text(pipeline_config(module, cls.__name__))

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers', without the Hub client's warning about an argument that diffusers itself passes."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks` argument")
            return super().load_config(*args, **kwargs)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """As diffusers', for a configuration of any format version. diffusers would warn of `auto_map`, which is for
        `AutoModel` alone."""
        config_dict = upgraded_config(config_dict, inspect.signature(cls.__init__).parameters)
        known = {name: value for name, value in config_dict.items() if name not in ("auto_map", *LATENT_STATISTICS)}
        return super().extract_init_dict(known, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's, for weights of any format version."""
        return super().load_state_dict(self._upgraded(state_dict), *args, **kwargs)

    @classmethod
    def _load_pretrained_model(  # type: ignore[override]  # named as diffusers passes them
        cls, model: Self, state_dict: dict[str, torch.Tensor] | None, files: list[str], *args: Any, **kwargs: Any
    ) -> Any:
        """What diffusers calls to fill a model. Weights in several files are joined first, because diffusers renames
        those of an earlier format version only in one."""
        if state_dict is None:
            state_dict = {name: weight for file in files for name, weight in load_file(file).items()}
            model._fix_state_dict_keys_on_load(state_dict)
            path, _, *args = args  # type: ignore[assignment]
            args = (path, list(state_dict), *args)
        return super()._load_pretrained_model(model, OrderedDict(state_dict), files[:1], *args, **kwargs)

    def _fix_state_dict_keys_on_load(self, state_dict: dict[str, torch.Tensor]) -> None:
        """What diffusers calls on the weights that it read: renames those of an earlier format version, in place."""
        upgraded = dict(self._upgraded(state_dict))
        state_dict.clear()
        state_dict.update(upgraded)

    def _upgraded(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return upgraded_weights(weights, version_of({}, weights.keys()), self.state_dict())

    @property
    def num_latents(self) -> int:
        """Number of latents that `encode` gives: `latent_dim`, and the residual ones where a family has them. `decode`
        takes as many, or `latent_dim`."""
        return self.config.latent_dim + (0 if self.detail is None else self.detail.detail_dim)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The shape of an image's latents on their grid, `(Z / S^2, S, S)`; `(Z, 1, 1)` without a grid. Flat latents
        `(B, Z)` are these, flattened."""
        size = self._latent_size
        return (self.config.latent_dim // size**2, size, size)

    @property
    def priors(self) -> list[str]:
        """The priors that samples can usefully be drawn from, in the order of `PRIORS`."""
        return [kind for kind in priors_of(self.config.prior, self.has_encoder) if kind in self.latent_prior.kinds]

    @property
    def output_size(self) -> int:
        """Edge in pixels of the generated images: the network's own `image_size`, unless configured."""
        return self.config.output_size or self.config.image_size

    def encode(self, images: torch.Tensor, return_dict: bool = True) -> EncoderOutput:
        """Images `(B, C, H, W)` in [-1, 1] to `EncoderOutput`. Without `return_dict`, to a tuple, as in diffusers: of
        the posterior, or of the latents in a family without one.

        Raises:
            ValueError: If the family has no encoder (`has_encoder`).
        """
        output = self._encode(images)
        if return_dict:
            return output
        return (output.latents if output.logvar is None else output.latent_dist,)  # type: ignore[return-value]

    def _encode(self, images: torch.Tensor) -> EncoderOutput:
        """What `encode` returns, of a family that has an encoder."""
        raise ValueError(f"{type(self).__name__} has no encoder: it can generate images, but not encode them.")

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput:
        """Latents to `DecoderOutput`, or to a tuple without `return_dict`. Its `sample` is `(B, C, H, W)`, in [-1, 1]
        except where the network overshoots.

        Args:
            latents: `(B, Z)`, the same on their grid `(B, *latent_shape)`, or with residual latents `(B, Z + D)`.
            return_dict: Return an output of diffusers' kind, not a tuple.

        Raises:
            ValueError: If they have another shape.
        """
        flat = latents.flatten(1) if tuple(latents.shape[1:]) == self.latent_shape else latents
        size, count = self.config.latent_dim, self.num_latents
        if flat.ndim != 2 or flat.shape[1] not in (size, count):
            details = f", or (B, {count}) with residual latents" if count > size else ""
            grid = f", or on their grid (B, {', '.join(map(str, self.latent_shape))})"
            raise ValueError(f"Latents (B, {size}) are needed{grid}{details}; got {tuple(latents.shape)}.")
        images = self._decode(flat.to(self.dtype))
        return DecoderOutput(sample=images) if return_dict else (images,)  # type: ignore[return-value]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images of flat latents."""
        return self.decoder(latents)

    @torch.no_grad()
    def sample(
        self,
        num_images: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        rest_temperature: float | None = None,
    ) -> torch.Tensor:
        """Generates images `(num_images, C, H, W)` in [-1, 1].

        Args:
            num_images: How many.
            generator: Source of the latents' noise: one generator, or one for each image; the global one if None. The
                first images of a generator are the same, however many follow. One of the CPU gives the same images on
                any device.
            temperature: Scale of that noise. Below 1 samples are more typical and less varied.
            prior: The prior to draw latents from, one of `priors`; `config.prior` if None.
            num_steps: Number of steps from noise to latents, for a flow. Other priors ignore it.
            guidance: Strength of what a flow's network adds to its Gaussian; the model's own if None. Above 1
                samples are more typical. Other priors ignore it.
            rest_temperature: Scale of the noise of what the code does not say, such as skin and hair, for a prior with
                a code; the model's own if None. At 0.7, samples are softer, and fewer faces are malformed.

        Raises:
            ValueError: If the model has no such prior, `num_images` or `num_steps` is below 1, or there are several
                generators, but not one for each image. If `rest_temperature` is below 0, or the prior has no code.
        """
        latents = self.sample_latents(
            num_images, generator, temperature, prior, num_steps, guidance, rest_temperature=rest_temperature
        )
        return self.decode(latents).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def sample_latents(
        self,
        num_images: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        num_steps: int = DEFAULT_STEPS,
        guidance: float | None = None,
        code: tuple[torch.Tensor, torch.Tensor] | None = None,
        rest_temperature: float | None = None,
    ) -> torch.Tensor:
        """Draws the latents `(num_images, Z)` of the images that `sample` generates: from the prior, and then as
        `after_round_trips` leaves them. `code` is that of `LatentPrior.sample`, the other arguments and errors are
        those of `sample`."""
        kind = prior or self.config.prior
        latents = self.latent_prior.sample(
            num_images, kind, generator, temperature, num_steps, guidance, code, rest_temperature
        )
        return torch.cat([self.after_round_trips(some) for some in latents.split(ROUND_TRIP_BATCH)])

    @property
    def num_round_trips(self) -> int:
        """`config.round_trips`, which a family without an encoder does not have: 0."""
        return self.config.get("round_trips", 0)

    def after_round_trips(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes latents `(B, Z)` and encodes the images again, without noise, `config.round_trips` times:
        `(B, Z)`."""
        for _ in range(self.num_round_trips):
            images = self.decode(latents).sample.clamp(-1, 1)
            latents = self.encode(images).latents[:, : self.config.latent_dim].to(latents.dtype)
        return latents

    @torch.no_grad()
    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Encodes images `(B, C, H, W)` in [-1, 1] without noise, and decodes them again.

        Raises:
            ValueError: If the family has no encoder, or `images` are not such a tensor.
        """
        return self.decode(self._latents_of(images)).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def interpolate(
        self,
        start: torch.Tensor,
        end: torch.Tensor,
        num_images: int = 8,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> torch.Tensor:
        """Morphs one image into another, along a path through latent space.

        Args:
            start: Image `(C, H, W)` in [-1, 1].
            end: Another one.
            num_images: Number of images, at least 2. The first and the last are the reconstructions of both.
            kind: The path, see `path`; the model's default if None.
            num_steps: Number of steps of a flow, see `path`.

        Returns:
            Images `(num_images, C, H, W)` in [-1, 1].

        Raises:
            ValueError: If the family has no encoder, the model has no such path, `num_images` is below 2, or `start`
                and `end` are not such tensors.
        """
        if num_images < 2:
            raise ValueError(f"A path needs at least 2 images; got {num_images}.")
        latents = torch.cat([self._latents_of(image, 3) for image in (start, end)])  # (2, Z)
        path = self.path(latents[0], latents[1], num_images, kind, num_steps)  # (num_images, Z)
        return self.decode(path).sample.float().clamp(-1, 1)

    def path(
        self,
        starts: torch.Tensor,
        ends: torch.Tensor,
        num_points: int,
        kind: str | None = None,
        num_steps: int = DEFAULT_STEPS,
    ) -> torch.Tensor:
        """Evenly spaced points from `starts` to `ends`, both `(..., Z)`, or `(..., Z + D)` with residual latents:
        `(..., num_points, Z)` or `(..., num_points, Z + D)`. The arguments are those of `LatentPrior.path`, which
        describes the kinds. Residual latents go along the straight line on all of them. Through the code they fade
        where the image differs from the end that they belong to.

        Raises:
            ValueError: As `LatentPrior.path` does.
        """
        size, kind = self.config.latent_dim, kind or self.latent_prior.default_path
        points = self.latent_prior.path(starts[..., :size], ends[..., :size], num_points, kind, num_steps)
        weights = torch.linspace(0, 1, num_points, device=starts.device)[:, None]  # (num_points, 1)
        first, last = (
            self._details(latents[..., None, :].expand(*points.shape[:-1], -1), points, kind == CODE)
            for latents in (starts, ends)
        )
        return torch.cat([points, torch.lerp(first, last, weights)], -1)

    @torch.no_grad()
    def move(
        self,
        latents: torch.Tensor,
        shifts: torch.Tensor,
        num_steps: int = DEFAULT_STEPS,
        noise: Sequence[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Moves latents `(B, Z)` or `(B, Z + D)`, or one for all, by `shifts` (B, K), in standard deviations, along
        the first K components of `latent_prior.sliders`: see `LatentPrior.move`. Residual latents stay as they are.
        With a code they fade where the image changes."""
        size = self.config.latent_dim
        moved = self.latent_prior.move(latents[:, :size], shifts, num_steps, noise)
        has_code = CODE in self.latent_prior.kinds
        return torch.cat([moved, self._details(latents.expand(len(moved), -1), moved, has_code)], 1)

    def _details(self, latents: torch.Tensor, moved: torch.Tensor, fades: bool) -> torch.Tensor:
        """The residual latents in `latents` (..., Z + D), if there are any, for the image of `moved` (..., Z). If they
        fade, they fade where it differs from the image of `latents`."""
        before, details = latents.tensor_split([self.config.latent_dim], -1)
        if not fades or self.detail is None or not details.shape[-1]:
            return details
        images, changed = (self.decode(points.flatten(0, -2)).sample for points in (before, moved))
        return self.detail.faded(details.flatten(0, -2), changed - images).view(details.shape)

    def _latents_of(self, images: torch.Tensor, ndim: int = 4) -> torch.Tensor:
        """Images `(B, C, H, W)` in [-1, 1], or with `ndim` 3 one `(C, H, W)`, to latents `(B, Z)`. Others are refused:
        a network would also take bytes, and return noise."""
        size = (self.config.image_channels, self.config.image_size, self.config.image_size)
        is_float = isinstance(images, torch.Tensor) and images.is_floating_point()
        if self.has_encoder and not (is_float and images.ndim == ndim and images.shape[-3:] == size):
            of_shape = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images)
            raise ValueError(
                f"A float tensor ({'B, ' if ndim == 4 else ''}{', '.join(map(str, size))}) in [-1, 1] is needed; got "
                f"{of_shape}. hf_vae.ImagePipeline takes PIL images, paths and arrays of any size."
            )
        return self.encode(images if ndim == 4 else images[None]).latents
