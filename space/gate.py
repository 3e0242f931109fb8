"""Guards in front of Gradio: limits on the size of requests, and checks of endpoints, values and files. Failures are
reported without the server's paths."""

import logging
from reprlib import repr as short_repr
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse
from gradio.blocks import Block, BlockFunction
from gradio.route_utils import FnIndexInferError
from pydantic import ValidationError
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

import checks


MAX_CALL_BYTES = 2**20  # a call only names its files; the longest call, with 60 frames, takes 30 kB
MAX_UPLOAD_BYTES = 100 * 2**20  # all files of one upload together; Gradio's `max_file_size` limits each file
FILE_SENT = "An image file on your machine. URLs are not fetched: download the image and upload the file."
# the API page shows handle_file(...) for an example with a URL
FILE_EXAMPLE = {"path": "image.jpg", "url": "image.jpg", "meta": {"_type": "gradio.FileData"}}
FAILED = "The server could not complete this request. Try other settings or another model; the log has the reason."
CALLS = ("/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/", "/gradio_api/queue/join")


logger = logging.getLogger(__name__)


def limit_requests(app: ASGIApp) -> ASGIApp:
    """Middleware that answers 413 and stops reading when the body of a call or an upload exceeds its limit."""
    calls, uploads = (RequestBodyLimitMiddleware(app, limit) for limit in (MAX_CALL_BYTES, MAX_UPLOAD_BYTES))

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = scope.get("path", "").rstrip("/").endswith("/gradio_api/upload")
        await (uploads if is_upload else calls)(scope, receive, send)

    return limited


def refuse_call(request: Request, error: Exception) -> JSONResponse:
    """Answers a call of an endpoint or a parameter that does not exist. Gradio raises bare exceptions for these."""
    if not any(call in request.url.path for call in CALLS):
        raise error
    if isinstance(error, TypeError):
        sentence = "This endpoint has no such parameters; /gradio_api/info lists the parameters of each endpoint."
        return JSONResponse({"detail": sentence}, 422)
    name = request.path_params.get("api_name", error.args[0])
    return JSONResponse(
        {"detail": f"There is no endpoint {short_repr(name)}; /gradio_api/info lists the endpoints."}, 404
    )


APP_OPTIONS = {
    "middleware": [Middleware(limit_requests)],
    "exception_handlers": dict.fromkeys([FnIndexInferError, KeyError, TypeError], refuse_call),
}


class GuardedBlocks(gr.Blocks):
    """Blocks that check every call before a file is opened or fetched.

    A call with too few or too many values, or with a file that was not uploaded, is refused, and the error names the
    value. Every other failure is reported in one sentence. The same holds for the page's own events, which any client
    can call by their number.
    """

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Checks the values of a call; Gradio calls this first."""
        if block_fn.cancels:
            return
        blocks = block_fn.inputs
        if len(inputs) != len(blocks):
            missing = f"; {_name(blocks[len(inputs)])} is missing" if len(inputs) < len(blocks) else ""
            raise checks.refusal(f"This call needs {len(blocks)} values; {len(inputs)} were sent{missing}.")
        for block, value in zip(blocks, inputs, strict=True):
            _check_files(block, value)

    async def process_api(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Answers a call. Only a `gradio.Error` is meant for the sender. For any other exception Gradio would show the
        bare word "Error", and the message may name a path on the server."""
        try:
            return await super().process_api(*args, **options)
        except gr.Error:
            raise
        except Exception as error:
            logger.exception("A call failed.")
            raise checks.refusal(FAILED) from error

    def get_api_info(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Describes the API. Gradio's own description and example promise that files are fetched from URLs."""
        found = super().get_api_info(*args, **options)
        for endpoint in found["named_endpoints"].values():
            for parameter in endpoint["parameters"]:
                if parameter["component"] == "Image":
                    properties = parameter["type"]["properties"]
                    url = properties["url"] | {"description": "Not fetched"}
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
                f"{_name(block)} is {short_repr(value)}; it must be a file that was uploaded or shown."
            ) from None
    left = [value]
    while left:  # not recursive, since the caller decides how deep the value is nested
        part = left.pop()
        if isinstance(part, dict):
            if any(part.get(key) for key in ("path", "meta")):
                checks.uploaded_file(_name(block), part)
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
