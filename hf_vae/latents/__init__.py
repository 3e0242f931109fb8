"""Latents: encoding, what is fitted to them once the networks are trained, directions, and inversion."""
