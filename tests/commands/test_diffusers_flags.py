"""Command lines of diffusers' training scripts: each flag is taken, or answered by one line."""

import dataclasses

import pytest

import train_accelerate
from hf_vae.commands.diffusers_flags import INSTEAD, complaints, without_center_crop
from hf_vae.families import FAMILIES
from hf_vae.flags import flags_type


# of train_unconditional.py, train_text_to_image.py, train_vqgan.py and train_autoencoderkl.py at 58eb52c
SCRIPTS = {
    "train_unconditional": (
        "adam_beta1 adam_beta2 adam_epsilon adam_weight_decay cache_dir center_crop checkpointing_steps "
        "checkpoints_total_limit dataloader_num_workers dataset_config_name dataset_name ddpm_beta_schedule "
        "ddpm_num_inference_steps ddpm_num_steps ema_inv_gamma ema_max_decay ema_power "
        "enable_xformers_memory_efficient_attention eval_batch_size gradient_accumulation_steps hub_model_id "
        "hub_private_repo hub_token learning_rate local_rank logger logging_dir lr_scheduler lr_warmup_steps "
        "mixed_precision model_config_name_or_path num_epochs output_dir overwrite_output_dir prediction_type "
        "preserve_input_precision push_to_hub random_flip resolution resume_from_checkpoint save_images_epochs "
        "save_model_epochs train_batch_size train_data_dir use_ema"
    ),
    "train_text_to_image": (
        "allow_tf32 caption_column dream_detail_preservation dream_training foreach_ema gradient_checkpointing "
        "image_column image_interpolation_mode input_perturbation max_grad_norm max_train_samples max_train_steps "
        "noise_offset non_ema_revision num_train_epochs offload_ema pretrained_model_name_or_path report_to revision "
        "scale_lr seed snr_gamma tracker_project_name use_8bit_adam validation_epochs validation_prompts variant"
    ),
    "train_vqgan": (
        "discr_learning_rate discr_lr_scheduler discriminator_config_name_or_path log_grad_norm_steps log_steps "
        "timm_model_backend timm_model_layers timm_model_offset vae_loss validation_images validation_steps"
    ),
    "train_autoencoderkl": (
        "decoder_only disc_factor disc_learning_rate disc_loss disc_lr_scheduler disc_scale disc_start kl_scale "
        "lr_num_cycles lr_power perceptual_scale rec_loss set_grads_to_none validation_image"
    ),
}
THEIRS = {flag for flags in SCRIPTS.values() for flag in flags.split()}
ALIASES = {"resolution", "num_epochs", "random_flip", "center_crop"}
OURS = {
    field.name
    for name in FAMILIES
    for section in dataclasses.fields(flags_type(name))
    for field in dataclasses.fields(section.type)
}


def refused(arguments: list[str], capsys) -> list[str]:
    """The lines with which a command line is refused, with the exit code of a usage error."""
    with pytest.raises(SystemExit) as exit_with:
        train_accelerate.parse_arguments(arguments)
    assert exit_with.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_every_flag_of_theirs_is_taken_or_answered():
    assert set(INSTEAD) == THEIRS - ALIASES - OURS


@pytest.mark.parametrize("flag", INSTEAD)
@pytest.mark.parametrize("style", ["--{} 4", "--{}=4", "--{}"])
def test_a_flag_that_is_none_here_gets_one_line(flag, style, capsys):
    (line,) = refused(["vae", "--train_data_dir", "photos", *style.format(flag).split()], capsys)
    assert line == f"Error: There is no --{flag} here. {INSTEAD[flag]}."


def test_hyphens_and_several_flags_are_answered_too(capsys):
    lines = refused(["vae", "--cache-dir", "x", "--gradient-checkpointing"], capsys)
    assert "There is no --cache_dir here. Leave it out; set HF_HOME" in lines[0]
    assert lines[1].startswith("There is no --gradient_checkpointing here.") and len(lines) == 2


def test_what_is_suggested_exists():
    for text in INSTEAD.values():
        for word in text.replace(",", " ").split():
            assert not word.startswith("--") or word[2:].removeprefix("no_") in OURS | {"recipe"}, text


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--use_ema=True"], "--use_ema"),
        (["--use_ema", "false"], "--no_use_ema"),
        (["--push_to_hub", "true"], "--push_to_hub"),
        (["--push-to-hub=1"], "--push_to_hub"),
        (["--flip=no"], "--no_flip"),
    ],
)
def test_a_switch_takes_no_value(arguments, flag, capsys):
    (line,) = refused(["vae", *arguments], capsys)
    assert line.endswith(f"takes no value. Pass {flag}.")


@pytest.mark.parametrize("flag", ["--center_crop", "--center-crop"])
def test_a_centred_square_is_what_is_cut_anyway(flag):
    run = train_accelerate.parse_arguments(["vae", "--train_data_dir", "photos"])
    assert train_accelerate.parse_arguments(["vae", flag, "--train_data_dir", "photos"]) == run


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--train_data_dir", "my photos"], "vae --train_data_dir 'my photos'"),
        (["--train_data_dir", "photos", "dcgan"], "dcgan --train_data_dir photos"),
        (["vea", "--seed", "3"], "vae --seed 3"),
        ([], "vae"),
    ],
)
def test_without_a_family_in_front_one_sentence_names_them_and_the_command(arguments, command, capsys):
    (line,) = refused(arguments, capsys)
    assert all(name in line for name in FAMILIES) and line.endswith(f"python train_accelerate.py {command}")
    assert ("vea is not a family" in line) == ("vea" in arguments)


def test_a_recipe_brings_its_family(capsys):
    (line,) = refused(["vae", "--recipe", "r.json", "--seed", "3"], capsys)
    assert line.endswith("Leave out vae: python train_accelerate.py --recipe r.json --seed 3")


@pytest.mark.parametrize("words", ["--center_crop False", "--center_crop=False", "--center-crop no"])
def test_a_centred_square_cannot_be_turned_off(words, capsys):
    (line,) = refused(["vae", *words.split(), "--train_data_dir", "photos"], capsys)
    assert line.startswith("Error: --center_crop cannot be turned off. Images are cropped to the centred square")


def test_a_penalty_interval_is_refused_like_every_other_range():
    with pytest.raises(ValueError, match="^penalty_interval=0 is not possible; it must be at least 1.$"):
        train_accelerate.parse_arguments(["vaegan", "--penalty_interval", "0"])


def test_no_flags_are_nothing_to_complain_of():
    assert complaints([], {"use_ema"}) == [] and without_center_crop([]) == []
    assert without_center_crop(["--center_crop", "True", "--seed", "1"]) == ["--seed", "1"]
    assert without_center_crop(["--center_crop=1", "--seed", "1"]) == ["--seed", "1"]
    assert without_center_crop(["--seed", "1", "--center_crop"]) == ["--seed", "1"]
