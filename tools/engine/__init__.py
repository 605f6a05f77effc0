"""What every run has: its folder, the epoch loop, loaders, checkpoints, metrics."""
