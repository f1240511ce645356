"""The training loop, and the hooks around it: validation, metrics, checkpoints, signals."""
