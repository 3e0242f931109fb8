"""The `hf-vae` command."""

import signal
import sys
from collections.abc import Callable

import tyro

from ..flags import FLAG_STYLE
from ..ranges import with_ranges
from .align import align
from .arguments import with_home_folders
from .directions import directions
from .draw import interpolate, reconstruct, sample, sheet, sweep
from .environment import env
from .inspect import inspect
from .measure import compare, evaluate, table
from .publish import card, convert, export, push, space


DESCRIPTION = """Sample from a trained model, measure it and publish it. `hf-vae COMMAND --help` explains a command and
gives an example. MODEL is a folder, such as runs/my-vae, or a Hub id, such as me/my-vae."""


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: with_ranges(function)
    for function in (
        *(sample, reconstruct, interpolate, sweep, sheet),
        *(evaluate, compare, table),
        *(directions, card, push, space, export, convert, inspect, align, env),
    )
}


def main() -> None:
    """Runs the subcommand. An error is one line on stderr and exit code 1. An unknown command or flag exits with 2,
    and Ctrl-C with 130."""
    try:
        arguments = with_home_folders(sys.argv[1:])
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="hf-vae", description=DESCRIPTION, args=arguments, **FLAG_STYLE
        )
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {str(error).removeprefix('Error ')}")  # which messages in diffusers' words begin with
    except ModuleNotFoundError as error:
        extra = "onnx" if (error.name or "").startswith("onnx") else "train"
        sys.exit(
            f"Error: {error}. This command needs the extra [{extra}]: run `make install` and `source "
            f".venv/bin/activate`, or `pip install -e '.[{extra}]'`."
        )
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
