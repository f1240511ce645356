"""Perplexity of code under a model behind an OpenAI-style completions endpoint, by echoed log-probabilities."""
