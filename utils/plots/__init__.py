"""Pictures of clouds, labels and measurements."""
