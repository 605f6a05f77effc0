"""Pictures of clouds and curves (PNG), and clouds as files (PLY)."""
import numpy as np

from utils.files import replacing
from utils.plots.agg import ConstrainedLayoutEngine, Figure, FigureCanvasAgg, LinearSegmentedColormap, imsave

AZIMUTH, ELEVATION = np.radians(40), np.radians(22)  # of the viewer: about the y axis from +z, and above the ground
# far points fade towards the white ground, as in haze, so that near and far parts stay apart
DEPTH_COLOURS = LinearSegmentedColormap.from_list("depth", ["#c3d5e6", "#5b8fc0", "#24508f", "#101d4d"])
OUTLIERS = 1.4  # a reconstruction may reach this much further than the input before the rest is left out
CURVE_COLOUR, OTHER_COLOUR = "#24508f", "#b5651d"


def reconstruction_picture(path, clouds, title=""):
    """Draw clouds side by side, seen alike and to one scale, y up.

    Args:
        path: where to write the PNG, or None.
        clouds: dict of captions → arrays (N, 3); the first one, the input, decides the frame.
        title: stands above the panels.

    Returns the picture (H, W, 3) uint8, for TensorBoard. Raises ValueError for arrays of other shapes.
    """
    figure = new_figure(3 * len(clouds), 3.2 + 0.3 * bool(title))
    if title:
        figure.suptitle(title, fontsize=13)
    draw_clouds(figure.subplots(1, len(clouds), squeeze=False)[0], clouds)
    return render(figure, path)


def demo_picture(path, reconstructions, curves, embeddings=None, labels=None, xlabel="epoch"):
    """Draw reconstructions, an object a row, on the left, and curves above embeddings, one panel each, on the right.

    Args:
        path: where to write the PNG, or None.
        reconstructions: list of (name, input, coarse, fine), the last three arrays (N, 3).
        curves: dict of titles → dict of names → lists of (x, y); the first is drawn through, others are dashed.
        embeddings: dict of titles → arrays (M, 2), drawn in the colours of ``labels`` (M,); None for none.
        xlabel: what x is, under the curves.

    Returns the picture (H, W, 3) uint8.
    """
    rows, embeddings = max(len(reconstructions), 1), embeddings or {}
    figure = new_figure(15 if embeddings else 13, 2.7 * rows + 0.2)
    left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1.45 if embeddings else 1))
    if reconstructions:
        grid = left.subplots(rows, 3, squeeze=False)
        for axes, (name, *clouds) in zip(grid, reconstructions, strict=True):
            draw_clouds(axes, dict(zip((f"{name}: input", "coarse", "fine"), clouds, strict=True)))
    upper, lower = right.subfigures(2, 1) if embeddings and curves else (right, right)
    if curves:
        shape = (1, len(curves)) if embeddings else (len(curves), 1)
        panels = upper.subplots(*shape, squeeze=False).flatten()
        for axes, (title, lines) in zip(panels, curves.items(), strict=True):
            draw_curves(axes, title, lines)
        for axes in panels if embeddings else panels[-1:]:
            axes.set_xlabel(xlabel)
    for axes, (title, points) in zip(lower.subplots(1, len(embeddings), squeeze=False)[0] if embeddings else (),
                                     embeddings.items(), strict=True):
        axes.scatter(*np.asarray(points).T, c=labels, cmap="tab20", s=16, linewidths=0)
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])
    return render(figure, path)


def new_figure(width, height):
    """Return an empty figure of ``width`` × ``height`` inches; free of pyplot, so nothing is kept open."""
    return Figure(figsize=(width, height), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.07))


def draw_clouds(panels, clouds):
    """Draw each of ``clouds`` (a dict of captions → (N, 3)) into one of ``panels``, in the frame of the first."""
    for caption, cloud in clouds.items():
        check_points(caption, cloud)
    first = next(iter(clouds.values()))
    low, high = first.min(0), first.max(0)
    centre, radius = (low + high) / 2, max(np.linalg.norm(high - low) / 2, 1e-6)
    shown = {caption: inside(cloud, centre, OUTLIERS * radius) for caption, cloud in clouds.items()}
    seen = {caption: project(cloud - centre) for caption, cloud in shown.items()}  # N 3
    everything = np.concatenate(list(seen.values()))
    low, high = everything.min(0), everything.max(0)
    middle, extent = (low + high) / 2, 1.05 * max((high - low)[:2].max() / 2, 1e-6)
    for axes, (caption, view) in zip(panels, seen.items(), strict=True):
        view = view[view[:, 2].argsort()]  # the nearest last, so that they cover those behind
        size = np.clip(9000 / max(len(view), 1), 3, 22)
        axes.scatter(view[:, 0], view[:, 1], c=view[:, 2], cmap=DEPTH_COLOURS, vmin=low[2], vmax=high[2], s=size,
                     linewidths=0)
        axes.set(xlim=(middle[0] - extent, middle[0] + extent), ylim=(middle[1] - extent, middle[1] + extent),
                 aspect="equal")
        axes.set_axis_off()
        left_out = len(clouds[caption]) - len(view)
        axes.set_title(caption + (f" ({left_out} points outside)" if left_out else ""), fontsize=11)


def inside(cloud, centre, radius):
    """Return the points (N, 3) of ``cloud`` that are finite and at most ``radius`` from ``centre``."""
    return cloud[np.linalg.norm(cloud - centre, axis=1) <= radius]  # false for NaN


def project(points):
    """Return points (N, 3), y up, as a distant viewer sees them: right, up and towards the viewer (N, 3)."""
    sine, cosine = np.sin(AZIMUTH), np.cos(AZIMUTH)
    low, high = np.cos(ELEVATION), np.sin(ELEVATION)
    axes = np.array([[cosine, 0, -sine], [-high * sine, low, -high * cosine], [low * sine, high, low * cosine]])
    return points @ axes.T


def draw_curves(axes, title, lines):
    """Draw ``lines``, a dict of names → lists of (x, y): the first solid, the others dashed; several have a legend."""
    for index, (name, points) in enumerate(lines.items()):
        x, y = np.asarray(points, float).reshape(-1, 2).T
        axes.plot(x, y, label=name, color=OTHER_COLOUR if index else CURVE_COLOUR, linewidth=1.8,
                  linestyle="--" if index else "-", marker="o" if len(x) <= 30 and not index else None, markersize=4)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25)


def render(figure, path):
    """Return the pixels (H, W, 3) of ``figure`` and write them to ``path`` as PNG, unless it is None."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    if path is not None:
        with replacing(path) as file:
            imsave(file, pixels, format="png")
    return pixels


def write_ply(path, points, colors=None):
    """Write a cloud as a binary little-endian PLY file of float32 vertices.

    Args:
        path: where to write.
        points: (N, 3).
        colors: (N, 3) red, green and blue, as uint8 or from 0 to 1; None for none.

    Raises ValueError for arrays of other shapes.
    """
    points = np.asarray(points)
    check_points("points", points)
    fields = [(axis, "<f4") for axis in "xyz"]
    if colors is not None:
        colors = np.asarray(colors)
        if colors.shape != points.shape:
            raise ValueError(f"colors {colors.shape} and points {points.shape} differ in shape")
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        if colors.dtype != np.uint8:
            colors = np.rint(255 * colors.clip(0, 1))
    vertices = np.empty(len(points), fields)
    for (name, _), column in zip(fields, [*points.T, *([] if colors is None else colors.T)], strict=True):
        vertices[name] = column
    types = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}",
              *(f"property {types[kind]} {name}" for name, kind in fields), "end_header", ""]
    with replacing(path) as file:
        file.write("\n".join(header).encode() + vertices.tobytes())


def check_points(name, points):
    """Raise ValueError unless ``points`` is an array (N, 3)."""
    if np.ndim(points) != 2 or np.shape(points)[1] != 3:
        raise ValueError(f"{name} must be (N, 3), not {np.shape(points)}")
