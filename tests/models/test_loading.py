"""Model folders as strangers may write them: each is refused with one error that names what is wrong, in no more
memory than a good one takes, and nothing in any of them is run."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, tiny_model
from safetensors.torch import load_file, save_file

from hf_vae import VAE, AutoGenerator, ImagePipeline
from hf_vae.run_folder import CHECKPOINT_PREFIX, MANIFEST


pytestmark = pytest.mark.fault("untrusted weights", "refused with one error, before memory is allocated")

WEIGHTS = "diffusion_pytorch_model.safetensors"


def change_config(**changes) -> Callable[[Path], None]:
    """Replaces values of `config.json`."""

    def attack(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return attack


def write_config(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_bytes(content)


def change_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return attack


def change_header(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return attack


def announce_header(length: int) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + content[8:])

    return attack


def cut_weights(share: float) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[: int(share * len(content))])

    return attack


def link_out_of_the_folder(name: str) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return attack


def leave_a_pickle_alone(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(tiny_model("vae").state_dict(), folder / "diffusion_pytorch_model.bin")


def leave_a_pointer(name: str) -> Callable[[Path], None]:
    """What a clone without git-lfs has in place of a large file."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 8736890\n"
    return lambda folder: (folder / name).write_text(pointer)


def point_a_link_at_itself(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder / WEIGHTS)


def wait_in_a_pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def split_weights_over_other_folders(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"decoder.head.weight": "../../secret.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def put(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights[name].view(-1)[0].fill_(value)


HEAD = "decoder.head.weight"
RENAMED = {"extra": torch.zeros(1)}
DEEP = b'{"_class_name": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
LONG = b'{"_class_name": "VAE", "width": ' + b"8" * 5000 + b"}"
TOWER = ["conv 1 1 1", "convt 1 4 4", "convt 1 4 4", "convt 1 4 4", "convt 1 4 4", "convt 1 4 4", "convt 1 4 4"]

ATTACKS = {
    "no JSON": (write_config(b"{'width': 8}"), "config.json is not valid JSON"),
    "half a JSON": (write_config(b'{"_class_name": "VAE", "wid'), "config.json is not valid JSON"),
    "no text": (write_config(b"\xff\xfe\x00\xd8" * 9), "config.json is not valid JSON"),
    "an empty config": (write_config(b""), "config.json is not valid JSON"),
    "a list": (write_config(b"[1, 2]"), "has no _class_name"),
    "nested deeply": (write_config(DEEP), "config.json (is not valid JSON|has no _class_name)"),
    "a number of 5000 digits": (write_config(LONG), "config.json is not valid JSON"),
    "a config of megabytes": (write_config(b" " * 10**7), "more than 65,536 bytes"),
    "no class": (write_config(b'{"width": 8}'), "has no _class_name"),
    "a class that is a list": (change_config(_class_name=["VAE"]), "has no _class_name"),
    "an unknown class": (change_config(_class_name="UNet2DModel"), "UNet2DModel"),
    "a class with a path": (change_config(_class_name="os.system"), "os.system"),
    "another class of ours": (change_config(_class_name="DCGAN"), "config.json has 'latent_size'|DCGAN"),
    "an unknown key": (change_config(hidden_size=3), "'hidden_size', which a VAE does not know"),
    "defaults named anew": (change_config(_use_default_values=["width"]), "_use_default_values"),
    "a quantizer": (change_config(quantization_config={"quant_method": "gguf"}), "quantization_config"),
    "a text for a number": (change_config(width="8"), "width='8' is not possible; it must be int"),
    "true for a number": (change_config(latent_dim=True), "latent_dim=True is not possible"),
    "half a channel": (change_config(image_channels=1.5), "image_channels=1.5 is not possible"),
    "null for a number": (change_config(image_size=None), "image_size=None is not possible"),
    "NaN for a number": (change_config(latent_dim=float("nan")), "latent_dim=nan is not possible"),
    "a number for a text": (change_config(prior=3), "prior=3 is not possible"),
    "an unknown choice": (change_config(block="resnet"), "block='resnet' is not possible"),
    "a list for a number": (change_config(width=[8, 16]), "width=.* is not possible"),
    "layers that are a text": (change_config(decoder_layers="dense 3"), "decoder_layers='dense 3' is not possible"),
    "a layer of no kind": (change_config(decoder_layers=["import os"]), "The layer 'import os' cannot follow"),
    "a tower of pixels": (change_config(encoder_layers=TOWER), "values for an image"),
    "a negative size": (change_config(latent_dim=-8), "describes a model that cannot be built"),
    "no channels": (change_config(image_channels=0), "a model that cannot be built|does not have the weights"),
    "an impossible size": (change_config(image_size=100), "image_size=100 is not possible"),
    "pictures of a million pixels an edge": (change_config(output_size=10**6), "output_size=1000000"),
    "pictures of no pixels": (change_config(output_size=0), "output_size=0 is not possible"),
    "10^9 latents": (change_config(latent_dim=10**9), "weights, of which 268,435,456 are allowed"),
    "10^18 latents": (change_config(latent_dim=10**18), "describes a model that cannot be built"),
    "10^30 latents": (change_config(latent_dim=10**30), "describes a model that cannot be built"),
    "10^6 channels": (change_config(max_width=8 * 10**6, width=8 * 10**6), "268,435,456 are allowed"),
    "more latents than weights": (change_config(latent_dim=9), r"has shape .* instead of"),
    "no weights": (
        lambda folder: (folder / WEIGHTS).unlink(),
        f"no file named {WEIGHTS} found in .*. A model folder has",
    ),
    "a pickle alone": (
        leave_a_pickle_alone,
        f"no file named {WEIGHTS} found in .*. Only safetensors are read, and diffusion_pytorch_model.bin is in",
    ),
    "a pickle under another name": (
        lambda folder: (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1})),
        "announces a header|not as it was written",
    ),
    "weights in other folders": (split_weights_over_other_folders, "names files that save_pretrained does not write"),
    "a key is missing": (change_weights(lambda w: w.pop(HEAD)), f"{HEAD} is missing"),
    "every key is missing": (change_weights(lambda w: w.clear()), "and [0-9]+ more"),
    "a key is left over": (change_weights(lambda w: w.update(RENAMED)), "'extra' is unexpected"),
    "a key is renamed": (
        change_weights(lambda w: w.update({"Head": w.pop(HEAD)})),
        "'Head' is unexpected; decoder.head.weight is missing",
    ),
    "a shape is turned": (change_weights(lambda w: w.update({HEAD: w[HEAD].T.contiguous()})), f"{HEAD} has shape"),
    "a shape is larger": (change_weights(lambda w: w.update({HEAD: torch.zeros(99, 99)})), f"{HEAD} has shape"),
    "numbers that are whole": (
        change_weights(lambda w: w.update({HEAD: w[HEAD].int()})),
        f"{HEAD} holds values of type I32",
    ),
    "NaN": (change_weights(put(HEAD, float("nan"))), f"{HEAD} is not finite"),
    "infinity": (change_weights(put(HEAD, float("inf"))), f"{HEAD} is not finite"),
    "NaN in the prior": (change_weights(put("latent_prior.mean", float("nan"))), "latent_prior.mean is not finite"),
    "an empty file": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "is damaged"),
    "a quarter of a file": (cut_weights(0.25), "is damaged"),
    "all but the last byte": (cut_weights(0.9999), "is damaged"),
    "a header longer than the file": (announce_header(10**6), "is damaged"),
    "a header of exabytes": (announce_header(2**63), "announces a header of 9,223,372,036,854,775,808 bytes"),
    "a header of no bytes": (announce_header(0), "is damaged"),
    "a header that ends early": (announce_header(40), "is damaged"),
    "offsets past the end": (
        change_header(lambda h: h[HEAD].update(data_offsets=[0, 10**12])),
        "is damaged",
    ),
    "offsets that overlap": (
        change_header(lambda h: h[HEAD].update(data_offsets=[0, 4])),
        "is damaged",
    ),
    "a shape that the offsets deny": (
        change_header(lambda h: h[HEAD].update(shape=[10**6, 10**6])),
        "is damaged",
    ),
    "an unknown type": (change_header(lambda h: h[HEAD].update(dtype="PICKLE")), "is damaged"),
    "a pointer of git-lfs for weights": (
        leave_a_pointer(WEIGHTS),
        "is a Git LFS pointer, not the weights: run `git lfs pull`",
    ),
    "a pointer of git-lfs for the config": (
        leave_a_pointer("config.json"),
        "is a Git LFS pointer, not the configuration: run `git lfs pull`",
    ),
    "a web page": (
        lambda folder: (folder / WEIGHTS).write_bytes(b"<!DOCTYPE html><html><body>Log in"),
        "announces a header .*: it is not a safetensors file. Download it again",
    ),
    "a config from outside": (link_out_of_the_folder("config.json"), "is a link to a file outside"),
    "weights from outside": (link_out_of_the_folder(WEIGHTS), "is a link to a file outside"),
    "a link to itself": (point_a_link_at_itself, "no file named"),
    "a pipe": (wait_in_a_pipe, "no file named"),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model folder that is good."""
    tiny_model("vae").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_folder_is_refused_by_name(attack, folder):
    change, message = ATTACKS[attack]
    change(folder)
    with pytest.raises(ValueError, match=message) as refusal:
        AutoGenerator.from_pretrained(folder)
    assert len(str(refusal.value)) < 2000


def make_checkpoint(folder: Path) -> Path:
    """A folder with the files of a checkpoint that a run wrote after 8 updates."""
    checkpoint = folder / f"{CHECKPOINT_PREFIX}8"
    checkpoint.mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.bin", "random_states_0.pkl", MANIFEST):
        (checkpoint / name).write_text("{}")
    return checkpoint


def make_run(folder: Path) -> Path:
    """A run that was stopped before it was finished."""
    make_checkpoint(folder)
    (folder / "log.jsonl").write_text("{}")
    (folder / "train_config.json").write_text("{}")
    return folder


def test_a_checkpoint_is_told_from_a_model(folder, tmp_path):
    stopped, checkpoint = make_run(tmp_path / "stopped"), make_checkpoint(folder)
    finished = "is a checkpoint to resume from, not a model. The finished model is in "
    unfinished = "is a checkpoint to resume from, not a model. .*stopped has no finished model. To finish the run"
    for load in (AutoGenerator.from_pretrained, VAE.from_pretrained, ImagePipeline.from_pretrained):
        with pytest.raises(ValueError, match=re.escape(f"{checkpoint} {finished}{folder}.")):
            load(checkpoint)
        with pytest.raises(ValueError, match=f"{unfinished}.*--output_dir .*stopped --resume_from_checkpoint latest"):
            load(stopped / checkpoint.name)
    shutil.copy(folder / "config.json", checkpoint)  # what people try next
    with pytest.raises(ValueError, match=finished):
        AutoGenerator.from_pretrained(checkpoint)
    (checkpoint / "config.json").unlink()
    checkpoint.rename(tmp_path / "renamed")
    with pytest.raises(ValueError, match="renamed is a checkpoint to resume from, not a model"):
        AutoGenerator.from_pretrained(tmp_path / "renamed")


def test_inside_of_a_checkpoint_its_run_is_named(folder, monkeypatch):
    monkeypatch.chdir(make_checkpoint(folder))
    with pytest.raises(ValueError, match=re.escape(f"The finished model is in {folder}.")):
        AutoGenerator.from_pretrained(".")


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path):
    run = make_run(tmp_path / "run")
    way_out = f"start it with the same settings and --output_dir {run} --resume_from_checkpoint latest"
    for left in ("train_config.json", "log.jsonl", None):
        with pytest.raises(ValueError, match=f"is a run that is not finished.*{re.escape(way_out)}") as refusal:
            AutoGenerator.from_pretrained(run)
        assert "author" not in str(refusal.value)
        if left:
            (run / left).unlink()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "empty; a model folder has config.json and diffusion_pytorch_model.safetensors"),
        (
            ["notes.txt"],
            "^Error no file named config.json found in directory .*. A model folder has what save_",
        ),
        (
            ["model.pth"],
            "no file named config.json found in .*. Only safetensors are read, and model.pth is in",
        ),
        (
            ["tf.h5", "weights.bin"],
            "config.json found in directory .*. Only safetensors are read, and tf.h5, weights.bin",
        ),
        (["a/config.json", "b/config.json"], "is not a model, but has 2; pass one of them: .*/a, .*/b."),
        ([f"m{number:02d}/config.json" for number in range(20)], "has 20; pass one of them: .*/m11 and 8 more."),
    ],
)
def test_a_folder_without_a_model_says_what_it_holds_instead(names, message, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=message):
        AutoGenerator.from_pretrained(tmp_path)


def test_a_file_is_not_a_folder(folder):
    for name in ("config.json", WEIGHTS):
        with pytest.raises(ValueError, match=f"{name} is a file, not a model folder; pass the folder"):
            AutoGenerator.from_pretrained(folder / name)


def test_the_shipped_models_are_listed_for_who_names_their_folder():
    with pytest.raises(ValueError, match="model_cards is not a model, but has [0-9]+; pass .*model_cards/cats-vae,"):
        AutoGenerator.from_pretrained(REPOSITORY / "model_cards")


def test_the_home_folder_may_be_written_as_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    expected = VAE.from_pretrained(folder).state_dict()
    for load in (AutoGenerator.from_pretrained, VAE.from_pretrained):
        for path in (f"~/{folder.name}", Path(f"~/{folder.name}")):
            assert load(path).state_dict().keys() == expected.keys()
    assert ImagePipeline.from_pretrained(f"~/{folder.name}").model.num_latents == 8
    monkeypatch.chdir(folder)
    VAE.from_pretrained(folder).save_pretrained("~/again")
    assert (folder.parent / "again" / WEIGHTS).is_file() and not (folder / "~").exists()


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential", "cpu", {"": "cpu"}, torch.device("cpu")])
@pytest.mark.parametrize("low_cpu_mem_usage", [None, True, False])
def test_a_device_map_names_one_device(folder, device_map, low_cpu_mem_usage):
    options = {} if low_cpu_mem_usage is None else {"low_cpu_mem_usage": low_cpu_mem_usage}
    model = AutoGenerator.from_pretrained(folder, device_map=device_map, **options)
    automatic = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    on_cpu = device_map not in ("auto", "balanced", "sequential")
    assert model.device.type == ("cpu" if on_cpu else automatic.type) and not model.training
    for name, value in load_file(folder / WEIGHTS).items():
        assert torch.equal(model.state_dict()[name].cpu(), value), name
    assert model.sample(2).isfinite().all()


@pytest.mark.parametrize("device_map", ["gpu", "disk", -1, {"encoder": "cpu", "decoder": "cpu"}, ["cpu"], "cuda:99"])
def test_another_device_map_is_refused_with_the_way_out(folder, device_map):
    with pytest.raises(ValueError, match=r"device_map=.* is not possible: .* use \.to\(device\)"):
        AutoGenerator.from_pretrained(folder, device_map=device_map)


def test_the_precision_can_be_chosen_with_a_device_map(folder):
    model = AutoGenerator.from_pretrained(folder, device_map="cpu", torch_dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.sample(2, prior="gaussian").isfinite().all()


MEASURED = """
import re, sys
from pathlib import Path
from hf_vae import AutoGenerator

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**10  # MiB

root = Path(sys.argv[1])
AutoGenerator.from_pretrained(root / "good")
before, refused = peak(), 0
for folder in sorted(root.glob("*/model")):
    try:
        AutoGenerator.from_pretrained(folder)
    except ValueError:
        refused += 1
print(refused, peak() - before)
"""


def test_refusing_takes_no_more_memory_than_loading(folder, tmp_path):
    root = tmp_path / "strangers"
    shutil.copytree(folder, root / "good")
    for number, (change, _) in enumerate(ATTACKS.values()):
        shutil.copytree(folder, root / str(number) / "model")
        change(root / str(number) / "model")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURED, str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    refused, grown = done.stdout.split()[-2:]
    assert int(refused) == len(ATTACKS)
    assert float(grown) < 64


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    change_config(auto_map={"AutoModel": "modelling.VAE"})(folder)
    (folder / "modelling.py").write_text(f"open({str(tmp_path / 'was-here')!r}, 'w')")
    assert type(AutoGenerator.from_pretrained(folder)) is VAE
    assert not (tmp_path / "was-here").exists()


def test_pickles_are_not_asked_for(folder):
    with pytest.raises(ValueError, match="use_safetensors=False"):
        VAE.from_pretrained(folder, use_safetensors=False)


def test_a_folder_of_the_hub_s_cache_links_to_its_blobs(folder, tmp_path):
    """What a download looks like: names in `snapshots` link to contents in `blobs`."""
    snapshot, blobs = tmp_path / "models--me--x" / "snapshots" / "abc", tmp_path / "models--me--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", WEIGHTS):
        shutil.move(folder / name, blobs / f"digest-of-{name}")
        (snapshot / name).symlink_to(f"../../blobs/digest-of-{name}")
    assert type(AutoGenerator.from_pretrained(snapshot)) is VAE
    (snapshot / "config.json").unlink()
    shutil.copy(blobs / "digest-of-config.json", tmp_path / "config.json")
    (snapshot / "config.json").symlink_to("../../../config.json")
    with pytest.raises(ValueError, match="outside of its folder"):
        AutoGenerator.from_pretrained(snapshot)


@pytest.mark.parametrize("loader", [AutoGenerator, VAE])
def test_a_model_of_the_hub_goes_through_the_same_check(loader, folder, tmp_path, monkeypatch):
    asked = {}

    def download(repo_id: str, allow_patterns: list[str], **options) -> str:
        asked[repo_id] = options
        parts = "diffusion_pytorch_model-*-of-*.safetensors"
        assert set(allow_patterns) <= {"config.json", WEIGHTS, f"{WEIGHTS}.index.json", parts}
        return str(folder)

    monkeypatch.setattr("hf_vae.models.loading.snapshot_download", download)
    assert type(loader.from_pretrained("me/x", revision="abc", cache_dir=tmp_path)) is VAE
    assert asked == {"me/x": {"revision": "abc", "cache_dir": tmp_path}}
    change_weights(put(HEAD, float("nan")))(folder)
    with pytest.raises(ValueError, match=f"{HEAD} is not finite"):
        loader.from_pretrained("me/x")


def test_half_precision_variants_and_subfolders_are_loaded(folder, tmp_path):
    model = VAE.from_pretrained(folder)
    model.half().save_pretrained(tmp_path / "repository" / "half", variant="fp16")
    loaded = VAE.from_pretrained(tmp_path / "repository", subfolder="half", variant="fp16", torch_dtype=torch.float16)
    assert loaded.dtype == torch.float16 and loaded.sample(2, prior="gaussian").isfinite().all()
    with pytest.raises(
        ValueError, match=r"no file named diffusion_pytorch_model\.safetensors found .* pass variant='fp16'"
    ):
        VAE.from_pretrained(tmp_path / "repository", subfolder="half")
    with pytest.raises(ValueError, match="repository/full does not exist"):
        VAE.from_pretrained(tmp_path / "repository", subfolder="full")


def test_a_repository_without_a_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_vae.models.loading.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ValueError, match="^me/x on the Hub has no config.json"):
        AutoGenerator.from_pretrained("me/x")
    with pytest.raises(ValueError, match="^me/x, folder half, on the Hub has no config.json"):
        VAE.from_pretrained("me/x", subfolder="half")


@pytest.mark.parametrize("path", ["/nowhere/model", "./model", "runs/of/mine/model", "~/model"])
def test_a_path_that_leads_nowhere_is_not_explained_by_the_rules_of_ids(path, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is neither a model folder here nor the id of a model on the Hub, such as"):
        AutoGenerator.from_pretrained(path)


def test_the_caller_may_change_the_size_of_the_pictures(folder):
    assert VAE.from_pretrained(folder, output_size=20).output_size == 20
    with pytest.raises(ValueError, match="output_size=-3"):
        VAE.from_pretrained(folder, output_size=-3)
