"""Our tasks as lm-evaluation-harness finds them by --include_path, for models of any kind."""
