"""Architectures, one file each, read top to bottom: a model is a list of layers (`plan.LayerPlan`)."""
