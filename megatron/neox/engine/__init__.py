"""DeepSpeed and megatron-core made into one machine: process grid, training engine, checkpoints, inference.

Every workaround for the two libraries stands in this folder, each beside a comment that says what goes wrong
without it. Importing a module here imports neither library; building something does.
"""
