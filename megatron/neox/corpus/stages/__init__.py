"""Stages: how a pass over a corpus is divided, resumed, counted and spread over machines."""
