"""What `hf-vae` runs: one file for each group of commands, one function for each command."""
