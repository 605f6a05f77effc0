"""The path of ``datasets.io.point_files`` in version 0.1, for scripts that import it."""
from datasets.io.point_files import FORMATS, find_files, read_cloud, read_points

__all__ = ["FORMATS", "find_files", "read_cloud", "read_points"]
