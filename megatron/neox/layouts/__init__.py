"""Checkpoint layouts: how named tensors lie in files. A layout knows tensors and folders, and no engine."""
