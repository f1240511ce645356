"""A corpus made ready for others: cleaned, divided, described, published."""
