"""Documents: read from where they lie, filtered with a reason each, collected into trees; no torch here."""
