"""Numbers about a trained model: tasks, each a plugin, and the files their results go to."""
