"""Surfaces that the embedded objects are composed of: each has an area and samples itself uniformly."""
import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass
class Part:
    """A surface: ``sample(rng, n)`` returns (n, 3) points spread evenly over ``area``."""

    area: float
    sample: Callable

    def turned(self, rotation):
        """Return the part turned about the origin by ``rotation`` (3, 3)."""
        return Part(self.area, lambda rng, n: self.sample(rng, n) @ rotation.T)

    def moved(self, x=0.0, y=0.0, z=0.0):
        """Return the part shifted."""
        return Part(self.area, lambda rng, n: self.sample(rng, n) + np.array([x, y, z]))


def sample_parts(parts, rng, n):
    """Return ``n`` points of all ``parts`` together, shared out by area."""
    areas = np.array([part.area for part in parts])
    counts = rng.multinomial(n, areas / areas.sum())
    return np.concatenate([part.sample(rng, count) for part, count in zip(parts, counts, strict=True)])


def box(width, height, depth):
    """A box about the origin: its six sides."""
    size = np.array([width, height, depth], float)
    sides = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])

    def sample(rng, n):
        points = rng.uniform(-0.5, 0.5, (n, 3))
        axis = rng.choice(3, n, p=sides / sides.sum())
        points[np.arange(n), axis] = rng.choice([-0.5, 0.5], n)
        return points * size

    return Part(2 * sides.sum(), sample)


def revolve(*profile):
    """The surface that the line through ``(radius, height)`` points makes about the y axis."""
    radius, height = np.array(profile, float).T
    slant = np.hypot(np.diff(radius), np.diff(height))
    areas = np.pi * (radius[1:] + radius[:-1]) * slant

    def sample(rng, n):
        piece = rng.choice(len(areas), n, p=areas / areas.sum())
        low, high = radius[piece], radius[piece + 1]
        even = rng.random(n)
        wanted = np.sqrt(low ** 2 + even * (high ** 2 - low ** 2))  # evenly by area along a cone
        same = np.isclose(low, high)
        share = np.where(same, even, (wanted - low) / np.where(same, 1, high - low))
        around = low + share * (high - low)
        angle = rng.uniform(0, 2 * np.pi, n)
        y = height[piece] + share * (height[piece + 1] - height[piece])
        return np.stack([around * np.cos(angle), y, around * np.sin(angle)], 1)

    return Part(areas.sum(), sample)


def cylinder(radius, height, top=None):
    """A closed cylinder, or a frustum with another radius at the ``top``, about the origin."""
    top = radius if top is None else top
    return revolve((0, -height / 2), (radius, -height / 2), (top, height / 2), (0, height / 2))


def ball(radius):
    """A sphere about the origin."""
    def sample(rng, n):
        points = rng.standard_normal((n, 3))
        return radius * points / np.linalg.norm(points, axis=1, keepdims=True)

    return Part(4 * np.pi * radius ** 2, sample)


def tube(curve, radius):
    """A tube of ``radius`` around the polyline ``curve`` (M, 3)."""
    curve = np.asarray(curve, float)
    steps = np.diff(curve, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    along = steps / lengths[:, None]
    # two directions across each step, starting from the axis it is least along
    helper = np.eye(3)[np.abs(along).argmin(1)]
    across = np.cross(along, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    other = np.cross(along, across)

    def sample(rng, n):
        step = rng.choice(len(lengths), n, p=lengths / lengths.sum())
        angle = rng.uniform(0, 2 * np.pi, (n, 1))
        centre = curve[step] + rng.random((n, 1)) * steps[step]
        return centre + radius * (np.cos(angle) * across[step] + np.sin(angle) * other[step])

    return Part(2 * np.pi * radius * lengths.sum(), sample)


def arc(radius, start, end, steps=24):
    """Points (steps + 1, 3) on a circle in the x–y plane, angles in degrees."""
    angle = np.radians(np.linspace(start, end, steps + 1))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros_like(angle)], 1)


def rotation(axis, degrees):
    """Return the (3, 3) rotation about ``axis`` (``x``, ``y`` or ``z``)."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    one, two = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[[one, two], [one, two]] = cosine
    matrix[one, two], matrix[two, one] = -sine, sine
    return matrix
