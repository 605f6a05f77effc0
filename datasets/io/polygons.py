"""Polygons as triangles."""
import numpy as np

from datasets.io import UnreadableError

MOST_CORNERS = 1000  # of a polygon that is not convex; the time grows with their square at least


def triangulate(vertices: np.ndarray, corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the triangles (T, 3) of polygons with ``counts`` (F,) ``corners`` each, which stand one after another.

    A convex polygon becomes a fan of triangles about its first corner. Of one that is not, such a fan would reach
    beyond its edges, so ears are cut off it.
    """
    starts = np.cumsum(counts) - counts
    triangles = []
    for size in np.unique(counts[counts >= 3]).tolist():
        polygons = corners[starts[counts == size, None] + np.arange(size)]  # F size
        convex = are_convex(vertices[polygons]) if size > 3 else np.ones(len(polygons), bool)
        fans = polygons[convex]
        first = np.broadcast_to(fans[:, :1], (len(fans), size - 2))
        triangles.append(np.stack([first, fans[:, 1:-1], fans[:, 2:]], 2).reshape(-1, 3))
        if size > MOST_CORNERS and not convex.all():
            raise UnreadableError(f"it holds a face of {size} corners that is not convex")
        triangles += [polygon[cut_ears(vertices[polygon])] for polygon in polygons[~convex]]
    return np.concatenate(triangles) if triangles else np.empty((0, 3), np.int64)


def normals_of(points):
    """Return vectors (F, 3) at right angles to polygons (F, K, 3), by Newell's method."""
    centred = points - points.mean(1, keepdims=True)
    return np.cross(centred, np.roll(centred, -1, 1)).sum(1)


def are_convex(points):
    """Return whether all corners of each of the polygons (F, K, 3) turn the same way (F,)."""
    edges = np.roll(points, -1, 1) - points
    turns = np.einsum("fkc,fc->fk", np.cross(np.roll(edges, 1, 1), edges), normals_of(points))
    return (turns >= -1e-9 * np.abs(turns).max(1, keepdims=True)).all(1)


def cut_ears(points):
    """Return triangles (K - 2, 3), which number the corners of a simple polygon (K, 3), by cutting off its ears."""
    normal = normals_of(points[None])[0]
    kept = np.delete(np.arange(3), np.abs(normal).argmax())  # seen along the axis that shows most of it
    flat = points[:, kept]
    if area_of(flat) < 0:
        flat = flat * (-1, 1)
    left, triangles = list(range(len(points))), []
    while len(left) > 3:
        place = next((place for place in range(len(left)) if is_ear(flat, left, place)), 0)
        triangles.append([left[place - 1], left[place], left[(place + 1) % len(left)]])
        del left[place]
    return np.array([*triangles, left])


def area_of(flat):
    """Return the signed area of a polygon (K, 2)."""
    x, y = flat.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def is_ear(flat, left, place):
    """Whether corner ``place`` of the polygon that is ``left`` sticks out and its triangle holds no other corner."""
    ends = left[place - 1], left[place], left[(place + 1) % len(left)]
    triangle = flat[list(ends)]
    if area_of(triangle) <= 0:
        return False
    others = flat[[corner for corner in left if corner not in ends]]
    others = others[(others[:, None] != triangle).any(2).all(1)]  # those at its corners belong to a bridge to a hole
    edges = np.roll(triangle, -1, 0) - triangle
    offsets = others[:, None] - triangle  # N 3 2
    sides = edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0]
    return not (sides >= 0).all(1).any()
