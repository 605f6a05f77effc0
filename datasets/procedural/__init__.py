"""Generated shapes."""
