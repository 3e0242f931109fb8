"""The flags of diffusers' training scripts that have another name here or do not exist.

They are those of train_unconditional.py, train_text_to_image.py, train_vqgan.py and train_autoencoderkl.py in
huggingface/diffusers at 58eb52c (2026-08-23). Flags with the same name, and aliases, are not listed.
"""

from collections.abc import Collection, Sequence


_CACHES = "Leave it out; set HF_HOME for downloads and HF_VAE_CACHE for decoded images"
_NO_TEXT = "Leave it out: the models here have no text encoder"
_NO_DIFFUSION = "Leave it out: the models here are not diffusion models"
_NO_EMA_SHAPE = "Leave it out; --ema_decay sets the decay of the moving average"
_ONE_RATE = "Leave it out: --learning_rate and --lr_scheduler apply to all networks"
_ONE_PERCEPTUAL = "Leave it out: the perceptual error of --perceptual_weight has one network, EfficientNet-Lite0"
_FITS = "Leave it out: these networks are small; --train_batch_size auto finds the largest batch of a GPU"
_FROM_FLAGS = "Use the model's flags, such as --width and --latent_dim, or --recipe"
_HELDOUT = "Leave it out: every run is evaluated on held-out images, and --reconstruction_steps draws them"
_CROP = "Images are cropped to the centred square; to use all of them, make them square first"

INSTEAD = {
    "adam_epsilon": "Leave it out: AdamW's epsilon is 1e-8",
    "cache_dir": _CACHES,
    "caption_column": _NO_TEXT,
    "dataloader_num_workers": "Leave it out: images are decoded once, into a cache",
    "ddpm_beta_schedule": _NO_DIFFUSION,
    "ddpm_num_inference_steps": _NO_DIFFUSION,
    "ddpm_num_steps": _NO_DIFFUSION,
    "decoder_only": "Use --no_train_encoder of a vaegan",
    "disc_factor": "Use --adversarial_weight of a vaegan",
    "disc_learning_rate": _ONE_RATE,
    "disc_loss": "Use --adversarial_loss of a vaegan or dcgan",
    "disc_lr_scheduler": _ONE_RATE,
    "disc_scale": "Use --adversarial_weight of a vaegan",
    "disc_start": "Use --adversarial_start of a vaegan",
    "discr_learning_rate": _ONE_RATE,
    "discr_lr_scheduler": _ONE_RATE,
    "discriminator_config_name_or_path": "Use --discriminator_width, or --discriminator_layers",
    "dream_detail_preservation": _NO_DIFFUSION,
    "dream_training": _NO_DIFFUSION,
    "ema_inv_gamma": _NO_EMA_SHAPE,
    "ema_max_decay": "Use --ema_decay",
    "ema_power": _NO_EMA_SHAPE,
    "enable_xformers_memory_efficient_attention": "Leave it out: the networks here have no attention",
    "eval_batch_size": "Use --preview_images",
    "foreach_ema": "Leave it out: the moving average is always updated that way",
    "gradient_checkpointing": _FITS,
    "image_interpolation_mode": "Leave it out: images are resized with Lanczos",
    "input_perturbation": _NO_DIFFUSION,
    "kl_scale": "Use --kl_weight",
    "local_rank": "Leave it out: `accelerate launch` and torchrun set LOCAL_RANK",
    "log_grad_norm_steps": "Leave it out: every line of log.jsonl has the gradient norms; use --logging_steps",
    "log_steps": "Use --logging_steps",
    "logger": "Use --report_to",
    "logging_dir": "Leave it out: trackers write into the folder logs in --output_dir",
    "lr_num_cycles": "Leave it out: no scheduler here restarts",
    "lr_power": "Leave it out: there is no polynomial scheduler",
    "max_train_samples": "Leave it out; use a folder with fewer images",
    "model_config_name_or_path": _FROM_FLAGS,
    "noise_offset": _NO_DIFFUSION,
    "non_ema_revision": "Leave it out; --pretrained_model_name_or_path takes a folder",
    "offload_ema": _FITS,
    "overwrite_output_dir": "Choose another --output_dir, or remove the folder",
    "perceptual_scale": "Use --perceptual_weight of a vae or vaegan",
    "prediction_type": _NO_DIFFUSION,
    "preserve_input_precision": "Leave it out: images are read with 8 bits per channel",
    "rec_loss": "Use --reconstruction_loss",
    "save_images_epochs": "Use --preview_steps, which counts updates",
    "save_model_epochs": "Use --checkpointing_steps, which counts updates",
    "scale_lr": "Leave it out; multiply --learning_rate yourself",
    "set_grads_to_none": "Leave it out: PyTorch does that by default",
    "snr_gamma": _NO_DIFFUSION,
    "timm_model_backend": _ONE_PERCEPTUAL,
    "timm_model_layers": _ONE_PERCEPTUAL,
    "timm_model_offset": _ONE_PERCEPTUAL,
    "tracker_project_name": "Leave it out: the project is hf_vae, and the run has the name of --output_dir",
    "use_8bit_adam": _FITS,
    "vae_loss": "Use --reconstruction_loss",
    "validation_epochs": _HELDOUT,
    "validation_image": _HELDOUT,
    "validation_images": _HELDOUT,
    "validation_prompts": _NO_TEXT,
    "validation_steps": "Use --reconstruction_steps",
    "variant": "Leave it out: --save_precision is the precision of the saved weights",
}
WORDS_OF_FLAGS = {"true": "", "false": "no_", "1": "", "0": "no_", "yes": "", "no": "no_"}


def without_center_crop(arguments: Sequence[str]) -> list[str]:
    """The arguments without --center_crop, which asks for the default: images are cropped to the centred square. With
    a value that means "no" it stays, and `complaints` answers it."""
    kept: list[str] = []
    followed = [*arguments, ""][1:]
    skip_value = False
    for argument, following in zip(arguments, followed, strict=True):
        if skip_value:
            skip_value = False
        elif _name(argument) == "center_crop" and (meaning := _meaning(argument, following)) != "no_":
            skip_value = "=" not in argument and meaning is not None
        else:
            kept.append(argument)
    return kept


def complaints(arguments: Sequence[str], switches: Collection[str]) -> list[str]:
    """A line for each flag of diffusers' scripts that does not exist here, and for each value of one of the
    `switches`, the flags without a value."""
    found = []
    followed = [*arguments, ""][1:]
    for argument, following in zip(arguments, followed, strict=True):
        name = _name(argument)
        if name in INSTEAD:
            found.append(f"There is no --{name} here. {INSTEAD[name]}.")
        elif name == "center_crop":
            found.append(f"--center_crop cannot be turned off. {_CROP}.")
        elif name in switches and ("=" in argument or _meaning(argument, following) is not None):
            found.append(f"--{name} takes no value. Pass --{_meaning(argument, following) or ''}{name}.")
    return found


def _meaning(argument: str, following: str) -> str | None:
    """The prefix of a switch that its value stands for: "" or "no_"; None if it has no such value."""
    return WORDS_OF_FLAGS.get((argument.partition("=")[2] if "=" in argument else following).lower())


def _name(argument: str) -> str | None:
    """The name of the flag in an argument, with or without a value; None if it is not a flag."""
    return argument[2:].partition("=")[0].replace("-", "_") if argument.startswith("--") else None
