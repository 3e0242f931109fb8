"""Loads a published model with diffusers alone: hf_vae need not be installed.

    python examples/auto_model.py                     # a model of this repository
    python examples/auto_model.py me/cats-vae         # a folder or a Hub id

It writes samples.png, and morph.png if the model has an encoder. `trust_remote_code=True` runs the Python in the
folder or repository. Read it first, and pin its commit with `revision`.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoModel, DiffusionPipeline
from diffusers.utils import make_image_grid


cats = Path(__file__).parent.parent / "model_cards" / "cats-vae"
place = sys.argv[1] if len(sys.argv) > 1 else str(cats)

# A pipeline, from noise to PIL images.
pipe = DiffusionPipeline.from_pretrained(place, trust_remote_code=True)
images = pipe(batch_size=16, generator=torch.Generator().manual_seed(7)).images
make_image_grid(images, rows=4, cols=4).save("samples.png")

# The model: images are tensors (B, C, H, W) in [-1, 1].
model = AutoModel.from_pretrained(place, trust_remote_code=True)
samples = model.sample(2, generator=torch.Generator().manual_seed(7))  # the first two of these images
if model.has_encoder:
    with torch.no_grad():
        latents = model.encode(samples).latents  # (2, Z)
        reconstructions = model.decode(latents).sample
    morph = model.interpolate(samples[0], samples[1], num_images=8)  # (8, C, H, W)
    frames = pipe.image_processor.postprocess(morph, output_type="pil")
    make_image_grid(frames, rows=1, cols=8).save("morph.png")
    print(f"Latents {tuple(latents.shape)}, mean squared error {(reconstructions - samples).square().mean():.4f}.")
