"""Metrics on held-out images, and the feature networks behind the distances."""
