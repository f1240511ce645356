"""Which repositories there are: GitHub's search, asked in windows that it answers whole."""
