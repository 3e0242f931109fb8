"""Images to latents."""

import torch

from ..models import ImageGenerator


ENCODE_BATCH = 256


@torch.no_grad()
def encode_all(model: ImageGenerator, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Encodes images `(N, C, H, W)` in [-1, 1] in batches to latents `(N, Z)`, or `(N, Z + D)` with residual latents.
    With a `generator`, each is drawn from its posterior if the family has one. Otherwise it is the posterior's
    mean."""
    latents = []
    for batch in images.split(ENCODE_BATCH):
        output = model.encode(batch.to(model.device))
        latents.append(output.latents)
        if generator is not None and output.logvar is not None:
            noise = torch.randn(output.logvar.shape, generator=generator).to(model.device)
            latents[-1][:, : noise.shape[1]] += noise * torch.exp(0.5 * output.logvar)
    return torch.cat(latents)
