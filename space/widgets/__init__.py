"""Parts of the page that Gradio does not have: for each, a script and a style sheet of its name in this folder.

A widget is a `gr.HTML`. Its `value` is a dict, and its script draws that into `element`. The script runs once, when
the widget appears, and `watch("value", ...)` calls it again when the server sends another value. Images are data URLs,
so that one answer brings the whole widget.
"""

import base64
import io
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image


SCRIPTS = Path(__file__).parent


def widget(name: str, value: dict[str, Any] | None = None, **options: Any) -> gr.HTML:
    """Adds the widget that `<name>.js` draws. `value` is what the server sends it; with None, it is empty. Other
    options are those of `gr.HTML`."""
    script = (SCRIPTS / f"{name}.js").read_text(encoding="utf-8")
    # a template without ${value}, so that Gradio does not draw over what the script has drawn
    return gr.HTML(
        value,
        html_template="<div class='widget-root'></div>",
        js_on_load=script,
        elem_classes=[f"widget-{name.replace('_', '-')}"],
        **options,
    )


def data_url(picture: Image.Image, kind: str = "PNG") -> str:
    """An image in a data URL. PNG is lossless, since visitors compare sharpness."""
    file = io.BytesIO()
    picture.save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
