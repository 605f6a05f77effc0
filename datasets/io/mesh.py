"""Surfaces of triangles."""
from typing import NamedTuple

import numpy as np

from datasets.io.polygons import triangulate


class Mesh(NamedTuple):
    """``vertices`` (V, 3) float64 and ``triangles`` (T, 3) int64, which number vertices; T may be 0."""

    vertices: np.ndarray
    triangles: np.ndarray

    @classmethod
    def of_polygons(cls, vertices: np.ndarray, corners: np.ndarray, counts: np.ndarray) -> "Mesh":
        """Return the mesh whose faces have ``counts`` (F,) ``corners`` each, which stand one face after another.

        Faces of fewer than three corners are no surface. Raises ValueError where a corner is none of the vertices.
        """
        corners, counts = np.asarray(corners, np.int64), np.asarray(counts, np.int64)
        check_indices(corners, len(vertices))
        return cls(vertices, triangulate(vertices, corners, counts))


def check_indices(indices: np.ndarray, vertices: int) -> None:
    """Raise ValueError unless all ``indices`` number one of so many vertices, from 0."""
    if len(indices) and not 0 <= indices.min() <= indices.max() < vertices:
        wrong = indices.min() if indices.min() < 0 else indices.max()
        raise ValueError(f"a face names vertex {wrong}, but there are {vertices}")
