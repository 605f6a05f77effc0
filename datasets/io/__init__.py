"""Readers of the file formats that point clouds and meshes come in.

A reader takes a path and returns points (N, ≥ 3) or a ``Mesh``. It compares what it reads with what the file announces
and raises ValueError, with the reason, where they differ; ``datasets.io.point_files`` names the file.
"""


class UnreadableError(ValueError):
    """A file that is in order, but that its reader cannot read, or not in one way alone."""
