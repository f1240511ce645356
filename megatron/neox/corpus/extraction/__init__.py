"""From repositories on the disk to their source files."""
