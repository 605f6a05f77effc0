"""Figures at paper quality (PNG, 300 dots an inch), and the same as interactive pages."""
import numpy as np

from utils.errors import ConfigError
from utils.files import replacing
from utils.plots.clouds import CURVE_COLOUR, check_points, draw_clouds, new_figure, project, render
from utils.plots.labels import palette

DPI = 300


def paper_figure(width, height):
    """Return an empty figure of ``width`` × ``height`` inches at 300 dots an inch."""
    figure = new_figure(width, height)
    figure.set_dpi(DPI)
    return figure


def panel_grid(path, titles, rows):
    """Draw clouds and images in rows and columns.

    Args:
        path: the PNG to write.
        titles: of the rows.
        rows: a list of dicts of captions → clouds (N, 3), clouds (N, 4) whose last value, 0 … 1, is the colour, clouds
            (N, 6) whose last values are red, green and blue, or images (H, W) of the same range. The first is a cloud
            and sets the frame of its row.

    Returns the picture (H, W, 3) uint8.
    """
    figure = paper_figure(2.2 * len(rows[0]), 2.2 * len(rows))
    draw_rows(figure, titles, rows)
    return render(figure, path)


def draw_rows(figure, titles, rows):
    """Draw the panels of ``panel_grid`` into a figure or a part of one."""
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for index, (axes, title, row) in enumerate(zip(grid, titles, rows, strict=True)):
        plain = {caption: content for caption, content in row.items() if content.shape[1] == 3}
        if plain:
            draw_clouds([panel for panel, caption in zip(axes, row, strict=True) if caption in plain], plain)
        for panel, (caption, content) in zip(axes, row.items(), strict=True):
            if is_image(content):
                panel.imshow(content, cmap="gray", vmin=0, vmax=1)
                panel.set(xticks=[], yticks=[])
            elif content.shape[1] > 3:
                draw_coloured(panel, content, next(iter(row.values()))[:, :3])
            panel.set_title(caption if index == 0 else "", fontsize=9)
        axes[0].text(-0.04, 0.5, title, transform=axes[0].transAxes, rotation=90, ha="right", va="center", fontsize=9)


def bars_and_rows(path, bars, titles, rows):
    """Draw bars, and below them the rows of ``panel_grid``.

    Args:
        path: the PNG to write.
        bars: a dict of what is measured → a dict of names → values, the same names for all.
        titles, rows: as for ``panel_grid``.

    Returns the picture (H, W, 3) uint8.
    """
    names = list(next(iter(bars.values())))
    width, top = max(2.2 * len(rows[0]), 1.9 * len(bars) + 1.5), 0.7 + 0.24 * len(names)
    figure = paper_figure(width, top + 2.2 * len(rows))
    upper, lower = figure.subfigures(2, 1, height_ratios=(top, 2.2 * len(rows)))
    for index, (axes, (title, values)) in enumerate(zip(upper.subplots(1, len(bars)), bars.items(), strict=True)):
        drawn = axes.barh(names, list(values.values()), color=CURVE_COLOUR, height=0.7)
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
        axes.set_title(title, fontsize=9)
        axes.set(xlim=(0, 1.3 * max(1e-9, *values.values())), xticks=[], ylim=(len(names) - 0.5, -0.5))
        axes.tick_params(labelsize=8, left=False, labelleft=index == 0)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    draw_rows(lower, titles, rows)
    return render(figure, path)


def is_image(content):
    """Whether a panel's content is an image and no cloud."""
    return content.shape[1] > 6


def draw_coloured(axes, cloud, frame):
    """Draw a cloud in the colours of its values, 0 … 1, after the coordinates; the cloud ``frame`` (M, 3) just fits in.

    There is one value, on a scale of colours, or there are three: red, green and blue.
    """
    check_points("cloud", cloud[:, :3])
    seen, limits = project(cloud[:, :3]), project(frame)[:, :2]
    order = seen[:, 2].argsort()
    axes.scatter(seen[order, 0], seen[order, 1], c=cloud[order, 3:].squeeze(), cmap="viridis", vmin=0, vmax=1, s=4,
                 linewidths=0)
    middle = (limits.min(0) + limits.max(0)) / 2
    extent = 1.05 * max((limits.max(0) - limits.min(0)).max() / 2, 1e-6)
    axes.set(xlim=(middle[0] - extent, middle[0] + extent), ylim=(middle[1] - extent, middle[1] + extent),
             aspect="equal")
    axes.set_axis_off()


def scatter_panels(path, panels, labels, names):
    """Draw points (N, 2) of each of ``panels``, a dict of titles → arrays, in the colours of their classes."""
    figure = paper_figure(3.2 * len(panels) + 1.4, 3.2)
    colours = palette(len(names)) / 255
    for axes, (title, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label in np.unique(labels):
            own = points[labels == label]
            axes.scatter(own[:, 0], own[:, 1], s=5, color=colours[label], linewidths=0, label=names[label])
        axes.set_title(title, fontsize=9)
        axes.set(xticks=[], yticks=[])
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside right center", frameon=False, fontsize=7, markerscale=2)
    return render(figure, path)


def rank_curves(path, curves):
    """Draw the shares of each of ``curves``, a dict of names → descending shares, over their rank."""
    figure = paper_figure(4.6, 3.2)
    axes = figure.subplots()
    for name, shares in curves.items():
        used = shares[shares > 0]
        marker = "o" if len(used) < 30 else None
        axes.plot(np.arange(1, len(used) + 1), used, linewidth=1.5, marker=marker, markersize=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="code, by frequency", ylabel="share of the patches")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return render(figure, path)


def clouds_html(path, titles, rows):
    """Write a page with every cloud of ``panel_grid``, to be turned with the mouse."""
    graph, subplots = _plotly()
    rows = [{caption: content for caption, content in row.items() if not is_image(content)} for row in rows]
    columns = list(rows[0])
    figure = subplots.make_subplots(
        rows=len(rows), cols=len(columns), specs=[[{"type": "scene"}] * len(columns)] * len(rows),
        subplot_titles=[f"{title}: {caption}" for title in titles for caption in columns])
    for row, clouds in enumerate(rows, 1):
        for column, cloud in enumerate(clouds.values(), 1):
            colour = cloud[:, 3] if cloud.shape[1] == 4 else cloud[:, 1]
            if cloud.shape[1] == 6:
                colour = ["rgb({:.0f},{:.0f},{:.0f})".format(*rgb) for rgb in 255 * cloud[:, 3:]]
            x, y, z = cloud[:, :3].T
            figure.add_trace(graph.Scatter3d(x=x, y=-z, z=y, mode="markers", showlegend=False,  # y is up
                                             marker={"size": 2, "color": colour, "colorscale": "Viridis"}), row, column)
    figure.update_scenes(aspectmode="data", xaxis_visible=False, yaxis_visible=False, zaxis_visible=False)
    figure.update_layout(height=380 * len(rows))
    _write_page(path, figure)


def scatter_html(path, panels, labels, names):
    """Write a page with the panels of ``scatter_panels``; a point's class is shown under the mouse."""
    graph, subplots = _plotly()
    figure = subplots.make_subplots(rows=1, cols=len(panels), subplot_titles=list(panels))
    colours = palette(len(names))
    for column, points in enumerate(panels.values(), 1):
        for label in np.unique(labels):
            own = points[labels == label]
            colour = "rgb({},{},{})".format(*colours[label])
            figure.add_trace(graph.Scatter(
                x=own[:, 0], y=own[:, 1], mode="markers", name=names[label], legendgroup=names[label],
                showlegend=column == 1, marker={"size": 5, "color": colour}), 1, column)
    _write_page(path, figure)


def _plotly():
    try:
        from plotly import graph_objects, subplots
    except ImportError as error:
        raise ConfigError("--html needs the package plotly: pip install plotly") from error
    return graph_objects, subplots


def _write_page(path, figure):
    with replacing(path) as file:
        file.write(figure.to_html(include_plotlyjs=True).encode())
