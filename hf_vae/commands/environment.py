"""The command that prints versions."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version

from .arguments import AsJson


def env(as_json: AsJson = False) -> None:
    """Prints the versions to put into a bug report.

    Example: hf-vae env --json

    Args:
        as_json: Print JSON.
    """
    import torch

    from ..hardware import device_name, device_to_use

    facts: dict[str, str | None] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for name in ("hf_vae", "torch", "diffusers", "accelerate", "datasets", "huggingface_hub", "gradio"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
    facts["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    device = device_to_use()
    facts["device"] = f"{device.type} ({device_name(device)})"
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(f"{name} {value or 'not available'}" for name, value in facts.items()))
