"""Pictures of labelled clouds: a colour a class."""
import numpy as np

from utils.plots.agg import Line2D, colormaps
from utils.plots.clouds import check_points, new_figure, project, render


def palette(count):
    """Return ``count`` colours (count, 3) uint8 that are told apart easily, the same at every call."""
    base = np.concatenate([colormaps[name].colors for name in ("tab20", "tab20b", "tab20c")])
    order = np.concatenate([np.arange(0, len(base), 2), np.arange(1, len(base), 2)])  # strong ones first
    return np.rint(255 * base[order][np.arange(count) % len(base)]).astype(np.uint8)


def labelled_picture(path, points, labels, names, title="", above=True):
    """Draw a cloud once for each labelling, side by side, with a legend of the classes that occur.

    Args:
        path: where to write the PNG, or None.
        points: (N, 3).
        labels: dict of captions → class numbers (N,).
        names: of the classes.
        title: stands above.
        above: look down the z axis, as on the plan of a room; otherwise from the front, y up.

    Returns the picture (H, W, 3) uint8. Raises ValueError for arrays of other shapes.
    """
    check_points("points", points)
    seen = points if above else project(points)
    order = seen[:, 2].argsort()  # the nearest last, so that they cover those behind
    seen = seen[order]
    colours = palette(len(names)) / 255
    figure = new_figure(5.2 * len(labels) + 1.8, 5.4)
    figure.suptitle(title, fontsize=13)
    for axes, (caption, values) in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True):
        values = np.asarray(values)
        if values.shape != (len(points),):
            raise ValueError(f"{caption} must be ({len(points)},), not {values.shape}")
        size = np.clip(30_000 / len(points), 0.5, 12)
        axes.scatter(seen[:, 0], seen[:, 1], c=colours[values[order]], s=size, linewidths=0)
        axes.set(aspect="equal")
        axes.set_axis_off()
        axes.set_title(caption, fontsize=11)
    present = sorted(set(np.concatenate([np.asarray(values) for values in labels.values()]).tolist()))
    handles = [Line2D([], [], linestyle="", marker="o", color=colours[number], label=names[number])
               for number in present]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=10)
    return render(figure, path)
