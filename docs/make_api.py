"""Writes docs/api.md: signatures and docstrings of what people import.

python docs/make_api.py
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any


PAGE = Path(__file__).with_name("api.md")
MODULES = {
    "hf_vae": None,  # None for all that it exports
    "hf_vae.models": ("LatentPrior",),
    "hf_vae.models.base": ("EncoderOutput",),
    "hf_vae.config": ("RunConfig",),
    "hf_vae.training": ("train",),
    "hf_vae.recipes": ("run_from_recipe", "training_command"),
    "hf_vae.datasets": ("load_images", "DataSplits", "ImageSet"),
    "hf_vae.labels": ("load_labels", "read_columns"),
    "hf_vae.inspection": ("inspect_pictures", "Findings"),
    "hf_vae.evaluation": ("evaluate", "evaluate_folder"),
    "hf_vae.features": (
        "FeatureNetwork",
        "EfficientNetFeatures",
        "InceptionFeatures",
        "open_features",
        "open_networks",
    ),
    "hf_vae.images": ("to_pil_images", "open_image"),
    "hf_vae.latents": ("encode_all",),
    "hf_vae.comparison": ("models_sheet", "std_sheet", "table_rows"),
    "hf_vae.inversion": ("invert",),
    "hf_vae.hub": ("push",),
    "hf_vae.export": ("export_onnx",),
    "hf_vae.cards": ("write_card",),
}


def page() -> str:
    """The whole page."""
    lines = ["# API", "", "Written by `python docs/make_api.py` from the docstrings; changes belong there.", ""]
    for name, chosen in MODULES.items():
        module = importlib.import_module(name)
        lines += [f"## {name}", "", inspect.getdoc(module), ""]
        for member in chosen or module.__all__:
            lines += _described(member, getattr(module, member), "###")
    return "\n".join(lines).rstrip() + "\n"


def _described(name: str, value: Any, heading: str) -> Iterator[str]:
    """A class with its public methods, or a function; nothing for a table such as `FAMILIES`."""
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return
    kind = "class " if inspect.isclass(value) else ""
    yield from (f"{heading} {name}", "", "```python", f"{kind}{name}{_signature(value)}", "```", "")
    yield from (_text(inspect.getdoc(value) or ""), "")
    if inspect.isclass(value):
        for method_name, method in vars(value).items():
            function = getattr(method, "__func__", method)
            if inspect.isfunction(function) and not method_name.startswith("_") and function.__doc__:
                yield from _described(f"{name}.{method_name}", function, "####")


def _signature(value: Any) -> str:
    """A long one takes a line for each argument."""
    signature = inspect.signature(value)
    text = str(signature)
    if len(text) < 90:
        return text
    arguments = "".join(f"    {parameter},\n" for parameter in signature.parameters.values())
    return f"(\n{arguments})"


def _text(docstring: str) -> str:
    """Google style to Markdown: the arguments and errors as lists."""
    lines, in_section = [], False
    for line in docstring.splitlines():
        if line in ("Args:", "Raises:", "Returns:"):
            lines += [f"**{line[:-1]}**", ""]
            in_section = True
        elif in_section and line.startswith("    ") and not line.startswith("     "):
            name, _, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}" if rest else f"- {line.strip()}")
        else:
            in_section = in_section and (line.startswith(" ") or not line)
            lines.append(line.strip() if in_section and line.startswith(" ") else line)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"Wrote {PAGE}")
