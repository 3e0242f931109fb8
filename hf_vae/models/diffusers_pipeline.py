"""The pipeline that diffusers makes of a published folder: from noise to images. It travels with the weights."""

import os
from typing import Any, Self

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput

from .auto import AutoGenerator
from .base import ImageGenerator
from .priors import DEFAULT_STEPS


class ImageGenerationPipeline(DiffusionPipeline):
    """Generates images with a model of any family, with the arguments of diffusers' unconditional pipelines.
    `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` gives one. `hf_vae.ImagePipeline` does more: it
    also encodes, morphs and varies images.

    Args:
        model: What generates the images.
    """

    model: ImageGenerator

    def __init__(self, model: ImageGenerator):
        super().__init__()
        self.register_modules(model=model)
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Self:
        """Loads a model's pipeline from a folder or a Hub id, without running code of the folder. The arguments are
        those of `ImageGenerator.from_pretrained`, which also says what it raises."""
        return cls(AutoGenerator.from_pretrained(pretrained_model_name_or_path, **kwargs))

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """As diffusers'. It looks for the class of a component in a folder of the component's name; this model's is in
        the same file as the pipeline."""
        init_dict, *others = super().extract_init_dict(config_dict, **kwargs)
        _, class_name = init_dict["model"]
        return ({**init_dict, "model": (cls.__module__, class_name)}, *others)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves the model, and with it this pipeline: as `ImageGenerator.save_pretrained`."""
        self.model.save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int = DEFAULT_STEPS,
        guidance_scale: float | None = None,
        temperature: float = 1.0,
        prior: str | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        rest_temperature: float | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generates images.

        Args:
            batch_size: Number of images.
            generator: Source of the noise: one generator, or one for each image; the global one if None.
            num_inference_steps: Number of steps from noise to latents, of a model with a flow.
            guidance_scale: Strength of what the flow's network adds to its Gaussian; the model's own if None.
            temperature: Scale of the noise. Below 1 images are more typical and less varied.
            prior: The prior to draw latents from; the model's own if None.
            output_type: "pil" (PIL images of the model's `output_size`), "np" or "pt": an array `(B, H, W, C)` or a
                tensor `(B, C, H, W)` of the network's own size, in [0, 1].
            return_dict: Return an output with `images`, not a tuple.
            rest_temperature: Scale of the noise of what the code does not say; the model's own if None.

        Raises:
            ValueError: If an argument is not possible, see `ImageGenerator.sample`.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type={output_type!r} is not possible; choose pil, np or pt.")
        samples = self.model.sample(
            batch_size, generator, temperature, prior, num_inference_steps, guidance_scale, rest_temperature
        )
        images = self.image_processor.postprocess(samples, output_type)
        size = self.model.output_size
        if output_type == "pil" and size != images[0].width:
            images = [self.image_processor.resize(image, size, size) for image in images]
        return ImagePipelineOutput(images=images) if return_dict else (images,)
