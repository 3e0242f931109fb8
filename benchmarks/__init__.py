"""How fast training and drawing are, measured side by side. Everything here prints; nothing asserts."""
