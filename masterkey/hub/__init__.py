"""Banks and checkpoints on the Hub and behind URLs: read what is needed of them, check it, keep it (docs/hub.md)."""
