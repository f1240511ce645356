"""Figures that others published, as data with their sources, protocols and disagreements."""
