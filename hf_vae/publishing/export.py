"""Exports a model to ONNX files, which run without PyTorch, for instance in a browser."""

import json
import logging
import warnings
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from ..models import ImageGenerator


TOLERANCE = 1e-4  # how far the outputs of a file may be from those of the model


class EncoderGraph(nn.Module):
    """Images `(B, C, H, W)` in [-1, 1] to latents `(B, N)` without noise, N with residual latents."""

    def __init__(self, model: ImageGenerator):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.encode(images).latents


class DecoderGraph(nn.Module):
    """Latents `(B, N)` to images `(B, C, H, W)` in [-1, 1]."""

    def __init__(self, model: ImageGenerator):
        super().__init__()
        self.model = model

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.model.decode(latents).sample.clamp(-1, 1)


class PriorGraph(nn.Module):
    """Noise `(B, noise_dim)` of N(0, I) to latents `(B, N)` of one of a model's priors: what `sample_latents` draws,
    with the columns of the noise in the order in which it draws them. Residual latents are 0, so that the decoder's
    graph, which takes one number of latents, takes these too."""

    def __init__(self, model: ImageGenerator, kind: str):
        super().__init__()
        self.model = model
        self.components, self.prior = model.latent_prior, model.latent_prior.get(kind)
        self.noise_dim = sum(self.prior.noise_sizes)
        self.num_details = model.num_latents - model.config.latent_dim

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        split = noise.clone().split(self.prior.noise_sizes, 1)
        parts = [scale * part for scale, part in zip(self.prior.noise_scales, split, strict=True)]
        latents = self.prior.from_noise(parts, self.components, while_loop=torch.while_loop)
        return F.pad(self.model.after_round_trips(latents), (0, self.num_details))


@torch.no_grad()
def export_onnx(model: ImageGenerator, folder: Path) -> list[Path]:
    """Writes `decoder.onnx`, `prior.onnx`, `encoder.onnx` if the model has an encoder, and `onnx.json` with the sizes.
    All of them take a batch of any size; docs/hub.md lists names, shapes and ranges.

    Returns:
        The files.

    Raises:
        ValueError: If the outputs of a file in onnxruntime differ from those of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, model = model.config, model.float().cpu().eval()
    prior = PriorGraph(model, config.prior)
    images = torch.rand(2, config.image_channels, config.image_size, config.image_size) * 2 - 1
    graphs = {
        "decoder": (DecoderGraph(model), "latents", torch.randn(2, model.num_latents), "images"),
        "prior": (prior, "noise", torch.randn(2, prior.noise_dim), "latents"),
    }
    if model.has_encoder:
        graphs["encoder"] = (EncoderGraph(model), "images", images, "latents")
    files = []
    for name, (graph, input_name, example, output_name) in graphs.items():
        files.append(folder / f"{name}.onnx")
        _write_graph(files[-1], graph, input_name, example, output_name)
    sizes = {name: config[name] for name in ("image_size", "image_channels")} | {"latent_dim": model.num_latents}
    sizes |= {"output_size": model.output_size, "noise_dim": prior.noise_dim, "has_encoder": model.has_encoder}
    files.append(folder / "onnx.json")
    files[-1].write_text(json.dumps(sizes, indent=2) + "\n")
    return files


def _write_graph(path: Path, graph: nn.Module, input_name: str, example: torch.Tensor, output_name: str) -> None:
    import onnxruntime
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which warns of libraries that no model here uses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about torch
        exported = torch.onnx.export(
            graph.eval(),
            (example,),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes={input_name: {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    program = cast(torch.onnx.ONNXProgram, exported)  # None only where torch itself writes the file
    ClearMetadataAndDocStringPass()(program.model)  # stack traces: megabytes, with paths of this machine
    program.save(path, external_data=False)
    others = torch.cat([example.flip(0), example[:1]])  # three, where the example has two
    (found,) = onnxruntime.InferenceSession(path).run(None, {input_name: others.numpy()})
    difference = (torch.from_numpy(found) - graph(others)).abs().max().item()
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The outputs of {path} differ by {difference:.2g} from the model, more than {TOLERANCE:.2g}."
        )
