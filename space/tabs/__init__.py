"""One module for each tab: its widgets and callbacks. Here is what they share."""

# One model runs at a time. Gradio's own preprocessing is off: it opens an upload before `uploads` can refuse it, and
# answers a broken one with a bare "Error". Every value goes through `checks` instead.
MODEL_EVENT = {"concurrency_id": "model", "concurrency_limit": 1, "preprocess": False}
INTERNAL_EVENT = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# Gradio's own format, WebP, is lossy, and sharpness is what people come to compare
UPLOAD = {"format": "png", "sources": ["upload", "clipboard"]}
PICTURE = {"format": "png", "interactive": False, "buttons": ["download"], "elem_classes": "pixelated"}
GALLERY = {"format": "png", "interactive": False, "height": "auto", "object_fit": "contain", "buttons": ["download"]}
THUMBNAILS = GALLERY | {"columns": 8, "elem_classes": ["pixelated", "thumbnails"]}
