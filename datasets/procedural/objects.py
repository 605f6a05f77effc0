"""How each embedded object is put together; every function draws its proportions from ``rng``. y is up."""
import numpy as np

from datasets.procedural.primitives import arc, ball, box, cylinder, revolve, rotation, tube


def _legs(width, depth, height, thickness, round_legs):
    """Four legs under a plate of ``width`` × ``depth`` whose lower side is at y = 0."""
    leg = cylinder(thickness / 2, height) if round_legs else box(thickness, height, thickness)
    x, z = (width - thickness) / 2, (depth - thickness) / 2
    return [leg.moved(sx * x, -height / 2, sz * z) for sx in (-1, 1) for sz in (-1, 1)]


def _seat(rng, width, depth, height):
    thickness = rng.uniform(0.05, 0.12)
    legs = _legs(width, depth, height, rng.uniform(0.05, 0.14), rng.random() < 0.5)
    return [box(width, thickness, depth).moved(0, thickness / 2), *legs]


def table(rng):
    width, depth, height = rng.uniform(1.0, 1.9), rng.uniform(0.7, 1.2), rng.uniform(0.6, 1.0)
    if rng.random() < 0.3:  # a round one on a single leg
        return [cylinder(width / 2, 0.07), cylinder(0.07, height).moved(0, -height / 2),
                cylinder(width / 4, 0.05).moved(0, -height)]
    return _seat(rng, width, depth, height)


def stool(rng):
    width, height = rng.uniform(0.4, 0.6), rng.uniform(0.5, 1.0)
    if rng.random() < 0.5:
        return [cylinder(width / 2, 0.08), *_legs(width * 0.75, width * 0.75, height, 0.06, True)]
    return _seat(rng, width, width * rng.uniform(0.8, 1.2), height)


def chair(rng):
    width, depth = rng.uniform(0.5, 0.7), rng.uniform(0.5, 0.7)
    tall, lean = rng.uniform(0.5, 1.0), rng.uniform(0, 15)
    back = box(width, tall, 0.07).moved(0, tall / 2).turned(rotation("x", -lean)).moved(0, 0.05, -depth / 2)
    arms = [box(0.06, 0.05, depth).moved(side * width / 2, 0.28) for side in (-1, 1)] if rng.random() < 0.3 else []
    return [*_seat(rng, width, depth, rng.uniform(0.4, 0.6)), back, *arms]


def bench(rng):
    width, depth = rng.uniform(1.2, 2.0), rng.uniform(0.35, 0.55)
    parts = _seat(rng, width, depth, rng.uniform(0.35, 0.5))
    if rng.random() < 0.6:
        tall = rng.uniform(0.3, 0.5)
        parts.append(box(width, tall * 0.6, 0.06).moved(0, tall, -depth / 2))
    return parts


def sofa(rng):
    width, depth, height = rng.uniform(1.2, 2.2), rng.uniform(0.7, 0.9), rng.uniform(0.3, 0.45)
    tall, arm = rng.uniform(0.4, 0.6), rng.uniform(0.12, 0.25)
    return [box(width, height, depth), box(width, tall, 0.2).moved(0, tall / 2, -depth / 2),
            *(box(arm, height + 0.25, depth).moved(side * width / 2, 0.12) for side in (-1, 1))]


def bookshelf(rng):
    width, height, depth = rng.uniform(0.7, 1.2), rng.uniform(1.2, 2.0), rng.uniform(0.25, 0.4)
    shelves = rng.integers(3, 7)
    parts = [box(width, 0.04, depth).moved(0, y) for y in np.linspace(0, height, shelves)]
    parts += [box(0.04, height, depth).moved(side * width / 2, height / 2) for side in (-1, 1)]
    if rng.random() < 0.5:
        parts.append(box(width, height, 0.02).moved(0, height / 2, -depth / 2))
    return parts


def _handle(radius, size, thickness, y):
    return tube(arc(size, -90, 90), thickness).moved(radius, y)


def mug(rng):
    radius, height = rng.uniform(0.35, 0.5), rng.uniform(0.7, 1.1)
    cup = revolve((0, 0), (radius * rng.uniform(0.8, 1), 0), (radius, height), (radius * 0.9, height),
                  (radius * 0.85, 0.06), (0, 0.06))
    return [cup, _handle(radius * 0.97, height * rng.uniform(0.25, 0.35), 0.05, height / 2)]


def bowl(rng):
    radius, depth = rng.uniform(0.6, 1.0), rng.uniform(0.35, 0.7)
    angle = np.linspace(0, np.pi / 2, 9)
    outer = list(zip(radius * np.sin(angle), depth * (1 - np.cos(angle)), strict=True))
    inner = [(r * 0.93, y * 0.93 + 0.07 * depth) for r, y in reversed(outer)]
    return [revolve(*outer, *inner), cylinder(radius * 0.35, 0.08)]


def bottle(rng):
    radius, height = rng.uniform(0.25, 0.4), rng.uniform(0.9, 1.4)
    neck, rise = radius * rng.uniform(0.25, 0.45), rng.uniform(0.3, 0.6)
    shoulder = height + rng.uniform(0.1, 0.35)
    return [revolve((0, 0), (radius, 0), (radius, height), (neck, shoulder), (neck, shoulder + rise),
                    (0, shoulder + rise))]


def vase(rng):
    heights = np.linspace(0, rng.uniform(1.0, 1.6), 12)
    phase, swing = rng.uniform(0.5, 2.5), rng.uniform(0.1, 0.22)
    radii = 0.35 + swing * np.sin(phase + heights * rng.uniform(3, 5))
    return [revolve((0, 0), *zip(radii, heights, strict=True))]


def lamp(rng):
    height, shade = rng.uniform(0.8, 1.6), rng.uniform(0.3, 0.55)
    return [cylinder(rng.uniform(0.25, 0.4), 0.06), cylinder(0.035, height).moved(0, height / 2),
            revolve((shade, 0), (shade * rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.5))).moved(0, height - 0.1)]


def umbrella(rng):
    radius, rise, length = rng.uniform(0.7, 1.0), rng.uniform(0.25, 0.5), rng.uniform(1.0, 1.5)
    steps = np.linspace(0, 1, 8)
    canopy = revolve(*zip(radius * steps, -rise * steps ** 2, strict=True))
    hook = tube(arc(0.12, 180, 360), 0.035).moved(0.12, -length)
    return [canopy, cylinder(0.03, length).moved(0, -length / 2), hook]


def airplane(rng):
    length, span = rng.uniform(1.6, 2.2), rng.uniform(1.5, 2.4)
    radius, sweep = rng.uniform(0.1, 0.17), rng.uniform(0, 30)
    body = revolve((0, -length / 2), (radius * 0.5, -length * 0.45), (radius, -length * 0.1), (radius, length * 0.35),
                   (0, length / 2)).turned(rotation("x", 90))
    wings = [box(span / 2, 0.03, rng.uniform(0.25, 0.4)).moved(side * span / 4)
             .turned(rotation("y", side * sweep)) for side in (-1, 1)]
    tail = [box(span * 0.35, 0.03, 0.2).moved(0, 0.05, -length * 0.43),
            box(0.03, 0.35, 0.22).moved(0, 0.2, -length * 0.43)]
    return [body, *wings, *tail]


def rocket(rng):
    radius, length = rng.uniform(0.15, 0.3), rng.uniform(1.0, 1.8)
    body = revolve((0, 0), (radius, 0), (radius, length), (radius * 0.6, length + radius), (0, length + 2.5 * radius))
    fin = box(radius * 1.6, rng.uniform(0.25, 0.5), 0.03).moved(radius * 1.3, 0.2)
    count = rng.integers(3, 5)
    return [body, *(fin.turned(rotation("y", 360 * i / count)) for i in range(count))]


def hammer(rng):
    length, head = rng.uniform(1.2, 1.8), rng.uniform(0.5, 0.8)
    thick = rng.uniform(0.14, 0.24)
    block = box(head, thick, thick) if rng.random() < 0.5 else cylinder(thick / 2, head).turned(rotation("z", 90))
    return [cylinder(rng.uniform(0.04, 0.07), length).moved(0, length / 2), block.moved(0, length)]


def dumbbell(rng):
    length, radius = rng.uniform(0.8, 1.4), rng.uniform(0.2, 0.35)
    weight = ball(radius) if rng.random() < 0.5 else cylinder(radius, radius).turned(rotation("z", 90))
    return [cylinder(0.07, length).turned(rotation("z", 90)), *(weight.moved(s * length / 2) for s in (-1, 1))]


def ring(rng):
    return [tube(arc(rng.uniform(0.6, 1.0), 0, 360, 48), rng.uniform(0.08, 0.28)).turned(rotation("x", 90))]


def spring(rng):
    turns, height = rng.uniform(2.5, 5), rng.uniform(0.8, 1.8)
    angle = np.linspace(0, 2 * np.pi * turns, int(24 * turns))
    radius = 0.5 * np.linspace(1, rng.uniform(0.5, 1), len(angle))
    curve = np.stack([radius * np.cos(angle), height * angle / angle[-1], radius * np.sin(angle)], 1)
    return [tube(curve, rng.uniform(0.05, 0.1))]


def stairs(rng):
    steps, width = rng.integers(3, 7), rng.uniform(0.6, 1.2)
    rise, run = rng.uniform(0.15, 0.25), rng.uniform(0.2, 0.3)
    return [box(width, rise * (i + 1), run).moved(0, rise * (i + 1) / 2, -run * i) for i in range(steps)]


def house(rng):
    width, height, depth = rng.uniform(0.8, 1.4), rng.uniform(0.5, 1.0), rng.uniform(0.8, 1.4)
    pitch = rng.uniform(25, 45)
    slope = width / 2 / np.cos(np.radians(pitch)) * 1.1
    rise = height / 2 + width / 4 * np.tan(np.radians(pitch))
    roof = [box(slope, 0.04, depth * 1.1).turned(rotation("z", -side * pitch)).moved(side * width / 4, rise)
            for side in (-1, 1)]
    chimney = [box(0.15, 0.45, 0.15).moved(width / 4, height / 2 + 0.4)] if rng.random() < 0.5 else []
    return [box(width, height, depth), *roof, *chimney]


RECIPES = {recipe.__name__: recipe for recipe in (
    airplane, bench, bookshelf, bottle, bowl, chair, dumbbell, hammer, house, lamp, mug, ring, rocket, sofa, spring,
    stairs, stool, table, umbrella, vase)}
