"""Checkpoints of one format made into another: `convert` is the whole job, the rest are its steps."""
