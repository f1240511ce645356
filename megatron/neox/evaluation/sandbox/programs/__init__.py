"""Programs that run as processes of their own: plain files that import the standard library and one another."""
