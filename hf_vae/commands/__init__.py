"""What `hf-vae` runs: one file for each group of commands, one function for each command."""

from ..startup import import_without_compiler


import_without_compiler()
