"""The state of a run: its progress, its networks, and what trains them: optimizers, learning-rate schedules and the
running average."""

import copy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from diffusers.optimization import get_scheduler
from torch import nn
from torch.distributed.tensor import DTensor

from ..config import TrainConfig
from ..hardware import Choices
from ..models import ImageGenerator
from ..models.running_average import move_average
from ..objectives import Logs, Objective
from ..objectives.batch import Batch


@dataclass
class Progress:
    """How far a run is.

    Args:
        step: Number of updates of the weights.
        batches: Number of batches; several for each update with gradient accumulation.
        images: Number of images on all ranks.
        lowest_validation_loss: For early stopping; None without it.
        epochs_since: Epochs since the lowest validation loss.
        launches: For each launch of the run: the update that it started after, its device and the settings that it
            changed.
    """

    step: int = 0
    batches: int = 0
    images: int = 0
    lowest_validation_loss: float | None = None
    epochs_since: int = 0
    launches: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Trainees:
    """The networks of a run, bare and prepared for distributed training, and what trains them.

    Args:
        bare: The modules themselves. A step calls its frozen partners through these.
        prepared: The same modules, wrapped if there are several processes. A step calls the network that it trains
            through these.
        optimizers: One for each network.
        schedulers: One for each network.
        trained: For each network the parameters that its step changes.
        averaged: The running average of the model; None without EMA.
    """

    bare: dict[str, nn.Module]
    prepared: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    schedulers: dict[str, torch.optim.lr_scheduler.LambdaLR]
    trained: dict[str, list[nn.Parameter]]
    averaged: ImageGenerator | None

    @property
    def published(self) -> ImageGenerator:
        """The model for previews and for the snapshot: the running average, if there is one."""
        return self.averaged or cast(ImageGenerator, self.bare["model"])

    @property
    def learning_rate(self) -> float:
        """The learning rate of the model's next update."""
        return float(self.schedulers["model"].get_last_lr()[0])

    def resume_at(self, step: int, config: TrainConfig) -> None:
        """Sets the optimizers and schedules to the configuration after `step` updates. The optimizers' states, which
        were loaded before, have the old settings, and a resumed run may have new ones."""
        for name, scheduler in self.schedulers.items():
            scheduler.last_epoch = step
            rates = [rate * shape(step) for rate, shape in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
            scheduler._last_lr = rates
            for group, rate in zip(self.optimizers[name].param_groups, rates, strict=True):
                group |= {"lr": rate, "betas": (config.adam_beta1, config.adam_beta2)}
                group |= {"weight_decay": config.adam_weight_decay}


def prepare(
    accelerator: Accelerator,
    model: ImageGenerator,
    objective: Objective,
    config: TrainConfig,
    choices: Choices,
    num_steps: int,
) -> Trainees:
    """Builds the other networks of `objective`, optimizers, schedules and running average, and prepares all of them
    for the device and the processes.

    Raises:
        ValueError: If the run uses FSDP and has a setting that does not work with it.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        _refuse_to_shard(objective, config)
    networks = objective.networks(model)
    for name in objective.frozen & dict(model.named_children()).keys():
        model.get_submodule(name).requires_grad_(False)
    if config.init_std is not None:
        for name, network in networks.items():
            if name != "model" or not config.pretrained_model_name_or_path:
                draw_weights(network, config.init_mean, config.init_std)
    if choices.channels_last:
        for network in networks.values():
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch gives it no type
    averaged = copy.deepcopy(model).to(accelerator.device).requires_grad_(False) if config.use_ema else None
    prepared, optimizers, schedulers = {}, {}, {}
    trained = {}
    for name, network in networks.items():
        network.train()
        if choices.compile_mode and name not in objective.differentiated_twice:
            network.compile(mode=choices.compile_mode)
        optimizer = torch.optim.AdamW(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            fused=True,
        )
        # not prepared: accelerate would step it once for each process, but it counts updates
        schedulers[name] = get_scheduler(
            config.lr_scheduler, optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=num_steps
        )
        prepared[name], optimizers[name] = accelerator.prepare(network, optimizer)
        trained[name] = [parameter for parameter in prepared[name].parameters() if parameter.requires_grad]
    for name in objective.frozen & dict(model.named_children()).keys():
        model.get_submodule(name).eval()  # batch statistics are part of the weights
    return Trainees(networks, prepared, optimizers, schedulers, trained, averaged)


def draw_weights(network: nn.Module, mean: float, std: float) -> None:
    """Draws the weights of all convolutions of a network from a normal distribution and sets their biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, mean, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def update(
    accelerator: Accelerator, trainees: Trainees, objective: Objective, batch: Batch, config: TrainConfig
) -> Logs:
    """Runs the objective's steps on one batch. In each step only the network that it trains is wrapped. Its partners
    are bare and frozen, so that no unused gradient is computed or averaged over ranks. Returns the logs of the steps,
    and the gradient norm of each network before clipping."""
    logs: Logs = {}
    for name, step in objective.steps.items():
        trained = trainees.prepared[name]
        for partner, parameters in trainees.trained.items():
            for parameter in parameters:
                parameter.requires_grad_(partner == name)
        with accelerator.autocast():  # accelerate itself covers only `forward`
            loss, step_logs = step({**trainees.bare, name: trained}, batch)
        accelerator.backward(loss)
        logs |= step_logs
        if accelerator.sync_gradients:
            # not accelerate's own clipping, which unscales the other optimizers' half-gathered fp16 gradients, too
            accelerator.unscale_gradients(trainees.optimizers[name])
            norm = nn.utils.clip_grad_norm_(trainees.trained[name], config.max_grad_norm or torch.inf)
            logs[f"grad_norm_{name}"] = _whole(norm.detach())
        trainees.optimizers[name].step()
        trainees.optimizers[name].zero_grad()
    return logs


def _refuse_to_shard(objective: Objective, config: TrainConfig) -> None:
    if objective.differentiated_twice:
        names = ", ".join(objective.differentiated_twice)
        raise ValueError(
            f"FSDP cannot shard {names}: its gradient is part of the loss, and FSDP frees the weights after the first "
            "differentiation. These networks fit on every GPU: launch with docs/launch/many_gpus.yaml."
        )
    if not config.use_ema:
        raise ValueError("FSDP needs the running average, which is complete on every rank: leave out --no_use_ema.")
    if config.channels_last == "yes":
        raise ValueError("FSDP shards contiguous weights only: leave out --channels_last yes.")


@torch.no_grad()
def follow(averaged: nn.Module, model: nn.Module, num_updates: int, decay: float) -> None:
    """Moves the weights and buffers of `averaged` towards those of `model`, see `move_average`."""
    values = {name: _whole(value) for name, value in model.state_dict().items()}
    move_average(averaged.state_dict(), values, num_updates, decay)


def _whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor, gathered from all ranks where it is sharded over them (FSDP)."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def num_parameters(network: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
