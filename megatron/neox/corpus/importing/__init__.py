"""From other people's datasets to shards."""
