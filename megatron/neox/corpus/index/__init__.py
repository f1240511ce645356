"""Which files a corpus holds: the index, written, read and asked."""
