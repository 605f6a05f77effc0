"""The path of ``utils.plots.clouds`` in version 0.1, for scripts that import it."""
from utils.plots.clouds import demo_picture, reconstruction_picture, write_ply

__all__ = ["demo_picture", "reconstruction_picture", "write_ply"]
