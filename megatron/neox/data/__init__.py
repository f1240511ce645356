"""From tokens on disk to batches: .bin/.idx files, splits, blends, sample order."""
