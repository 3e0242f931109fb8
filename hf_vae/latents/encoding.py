"""Images to latents."""

import torch

from ..models import ImageGenerator


ENCODE_BATCH = 256


@torch.no_grad()
def encode_all(
    model: ImageGenerator, images: torch.Tensor, generator: torch.Generator | None = None, draws: int = 1
) -> torch.Tensor:
    """Encodes images `(N, C, H, W)` in [-1, 1] in batches to latents `(N, Z)`, or `(N, Z + D)` with residual latents.
    With a `generator`, each is drawn from its posterior if the family has one, `draws` times: `(N * draws, Z)`.
    Otherwise it is the posterior's mean."""
    latents = []
    for batch in images.split(ENCODE_BATCH):
        output = model.encode(batch.to(model.device))
        if generator is None or output.logvar is None:
            latents.append(output.latents)
            continue
        for _ in range(draws):
            drawn = output.latents.clone()
            noise = torch.randn(output.logvar.shape, generator=generator).to(model.device)
            drawn[:, : noise.shape[1]] += noise * torch.exp(0.5 * output.logvar)
            latents.append(drawn)
    return torch.cat(latents)
