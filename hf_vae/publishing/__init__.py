"""Model cards, the Hub, and other formats."""
