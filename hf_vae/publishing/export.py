"""A model as ONNX files, which run where there is no PyTorch: in a browser, for instance."""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from ..models import ImageGenerator, LatentPrior


TOLERANCE = 1e-4  # how far the files may be from the model that they are made of


class EncoderGraph(nn.Module):
    """Images `(B, C, H, W)` in [-1, 1] to latents `(B, Z)`, without noise."""

    def __init__(self, model: ImageGenerator):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.encode(images).latents


class DecoderGraph(nn.Module):
    """Latents `(B, Z)` to images `(B, C, H, W)` in [-1, 1]."""

    def __init__(self, model: ImageGenerator):
        super().__init__()
        self.model = model

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.model.decode(latents).sample.clamp(-1, 1)


class PriorGraph(nn.Module):
    """Noise `(B, noise_dim)` of N(0, I) to latents `(B, Z)` of a prior: what `LatentPrior.sample` draws, with the
    columns of the noise in the order in which it draws them."""

    def __init__(self, prior: LatentPrior, kind: str):
        super().__init__()
        self.prior, self.kind = prior, kind
        self.noise_dim = sum(prior.noise_sizes(kind))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        if self.kind == "flow":
            return self.prior.denormalised(self._flow(noise))
        return self.prior.from_noise(noise.clone().split(self.prior.noise_sizes(self.kind), 1), self.kind)

    def _flow(self, noise: torch.Tensor) -> torch.Tensor:
        """`LatentFlow.sample` as one loop of the graph instead of its steps in a row."""

        times = self.prior.flow.sampling_times()
        steps = times.diff()

        def is_unfinished(index: torch.Tensor, _points: torch.Tensor, _before: torch.Tensor) -> torch.Tensor:
            return (index < len(steps)).all()

        def advance(index: torch.Tensor, points: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, ...]:
            velocity = self.prior.flow(points, times[index].expand(len(points)))
            step, last_step = steps[index], steps[(index - 1).clamp(min=0)]
            slope = torch.where(index == 0, 0, (velocity - before) / last_step)
            return index + 1, points + step * (velocity + step / 2 * slope), velocity

        first = torch.zeros(1, dtype=torch.long)
        carried = torch.while_loop(is_unfinished, advance, (first, noise.clone(), torch.zeros_like(noise)))[1]
        return (carried - self.prior.flow.mean) / self.prior.flow.std


@torch.no_grad()
def export_onnx(model: ImageGenerator, folder: Path) -> list[Path]:
    """Writes `decoder.onnx`, `prior.onnx`, `encoder.onnx` where the model has one, and `onnx.json`, which holds the
    sizes. All of them take a batch of any size; docs/hub.md lists names, shapes and ranges.

    Returns:
        The files.

    Raises:
        ValueError: If what onnxruntime makes of a file differs from the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, model = model.config, model.float().cpu().eval()
    prior = PriorGraph(model.latent_prior, config.prior)
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

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of libraries that no model here uses
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about itself
        program = torch.onnx.export(
            graph.eval(),
            (example,),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes={input_name: {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    ClearMetadataAndDocStringPass()(program.model)  # stack traces: megabytes, and the paths of this machine
    program.save(path, external_data=False)
    others = torch.cat([example.flip(0), example[:1]])  # three, where the example has two
    (found,) = onnxruntime.InferenceSession(path).run(None, {input_name: others.numpy()})
    difference = (torch.from_numpy(found) - graph(others)).abs().max().item()
    if not difference <= TOLERANCE:
        raise ValueError(f"{path} is up to {difference:.2g} from the model, more than {TOLERANCE:.2g}.")
