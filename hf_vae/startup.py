"""What a program of this package does before it imports anything else."""

import sys


COMPILER = "torch._dynamo"


def import_without_compiler() -> None:
    """Imports torch and diffusers, but not PyTorch's compiler, which would take a second of CPU time.

    diffusers imports it for a decorator of transformers, which no model here has, and does without it where it cannot
    be imported. A program that compiles its networks imports the compiler then.
    """
    import torch  # noqa: F401 (it is imported first, as some of its own modules may import the compiler)

    if COMPILER in sys.modules:
        return
    sys.modules[COMPILER] = None  # type: ignore[assignment] # an import of it raises ImportError
    try:
        import diffusers.utils  # noqa: F401
    finally:
        del sys.modules[COMPILER]
