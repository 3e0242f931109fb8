"""What a request passes before Gradio works with it: its size, the endpoint it names, its values and its files; and
what its sender is told when the work fails."""

import logging
from reprlib import repr as short_repr
from typing import Any

import gradio as gr
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from gradio.blocks import Block, BlockFunction
from gradio.route_utils import FnIndexInferError
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import checks


MAX_CALL_BYTES = 2**20  # a call names its files; the longest, with 60 frames, has 30 kB
MAX_UPLOAD_BYTES = 100 * 2**20  # all the files of one upload; `max_file_size` is that of each
FILE_SENT = "An image file on your machine. Addresses are not fetched: download the image and send the file."
# the page on the API writes handle_file(...) of what has an url
FILE_EXAMPLE = {"path": "image.jpg", "url": "image.jpg", "meta": {"_type": "gradio.FileData"}}
FAILED = "This failed on the server, and the reason is in its log; try other settings or another model."
CALLS = ("/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/", "/gradio_api/queue/join")


logger = logging.getLogger(__name__)


class SizeLimit:
    """Middleware that reads no more of a request than a call, or an upload, may have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with 413, or hands the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = MAX_UPLOAD_BYTES if scope["path"].rstrip("/").endswith("/gradio_api/upload") else MAX_CALL_BYTES
        sentence = f"This request is too large; it may have {limit // 2**20} MB."
        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, sentence)
            return message

        if int(Headers(scope=scope).get("content-length", 0)) > limit:
            await JSONResponse({"detail": sentence}, 413)(scope, receive, send)
        else:
            await self._app(scope, receive_some, send)


def refuse_call(request: Request, error: Exception) -> JSONResponse:
    """The answer to a call of what does not exist, which Gradio raises bare exceptions at."""
    if not any(call in request.url.path for call in CALLS):
        raise error
    if isinstance(error, TypeError):
        sentence = "The endpoint has no such parameters; /gradio_api/info lists those that it has."
        return JSONResponse({"detail": sentence}, 422)
    name = request.path_params.get("api_name", error.args[0])
    return JSONResponse({"detail": f"There is no endpoint {short_repr(name)}; /gradio_api/info lists them."}, 404)


APP_OPTIONS = {
    "middleware": [Middleware(SizeLimit)],
    "exception_handlers": dict.fromkeys([FnIndexInferError, KeyError, TypeError], refuse_call),
}


class GuardedBlocks(gr.Blocks):
    """Blocks that refuse calls with too few or too many values, and with files that their sender did not upload, by
    name and before anything is opened or fetched, and that answer each failure with a sentence. This holds for the
    events of the page, too, which anybody can call by their number."""

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """What Gradio calls first with the values of a call."""
        if block_fn.cancels:
            return
        blocks = block_fn.inputs
        if len(inputs) != len(blocks):
            missing = f"; {_name(blocks[len(inputs)])} is missing" if len(inputs) < len(blocks) else ""
            raise checks.refusal(f"This call needs {len(blocks)} values; {len(inputs)} were sent{missing}.")
        for block, value in zip(blocks, inputs, strict=True):
            _check_files(block, value)

    async def process_api(self, *args: Any, **options: Any) -> dict[str, Any]:
        """What Gradio answers a call with. Only a `gradio.Error` is meant for the sender: of anything else Gradio
        would show the bare word "Error", and its message may name a path of the server."""
        try:
            return await super().process_api(*args, **options)
        except gr.Error:
            raise
        except Exception as error:
            logger.exception("A call failed.")
            raise checks.refusal(FAILED) from error

    def get_api_info(self, *args: Any, **options: Any) -> dict[str, Any]:
        """What the page on the API says. Gradio's own words, and its example, promise that addresses of files are
        fetched."""
        found = super().get_api_info(*args, **options)
        for endpoint in found["named_endpoints"].values():
            for parameter in endpoint["parameters"]:
                if parameter["component"] == "Image":
                    properties = parameter["type"]["properties"]
                    url = properties["url"] | {"description": "Is not fetched"}
                    parameter["type"] = parameter["type"] | {
                        "additional_description": FILE_SENT,
                        "properties": properties | {"url": url},
                    }
                    parameter["python_type"]["description"] = FILE_SENT
                    parameter["example_input"] = FILE_EXAMPLE
        return found


def _name(block: Block) -> str:
    return getattr(block, "label", None) or "A value"


def _check_files(block: Block, value: Any) -> None:
    model = getattr(block, "data_model", None)
    if model and value is not None and not block.stateful:
        try:
            model.model_validate(value)
        except (ValidationError, ValueError):
            raise checks.refusal(
                f"{_name(block)} is {short_repr(value)}; it must be what was uploaded or shown."
            ) from None
    left = [value]
    while left:  # not recursive, as a stranger says how deep it goes
        part = left.pop()
        if isinstance(part, dict):
            if any(part.get(key) for key in ("path", "meta")):
                checks.uploaded_file(_name(block), part)
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
