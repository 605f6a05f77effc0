"""Draws docs/methods.png, how ACT and I2P-MAE learn from a 2D Transformer: ``python -m docs.draw_methods``."""
import pathlib

from utils.plots.agg import FancyBboxPatch, Figure, FigureCanvasAgg, Patch

COLOURS = {"data": "#ececec", "trained": "#ffd9a8", "frozen": "#bcd7f0", "loss": "#f3b5b5"}
MEANING = {"data": "data", "trained": "trained", "frozen": "frozen, pretrained in 2D or before", "loss": "loss"}
WIDTH, HEIGHT = 2.3, 0.8  # of a box

# panels: a title, boxes (name → column, row, kind, text) and arrows (from, to)
PANELS = (
    ("ACT, stage I: the image Transformer becomes part of a 3D autoencoder, by reconstruction alone", {
        "cloud": (0, 0, "data", "cloud in\npatches"), "codes": (1, 0, "trained", "patch tokens,\ncodebook"),
        "vit": (2, 0, "frozen", "image (or text)\nTransformer"), "prompts": (2, 1, "trained", "prompts"),
        "decoder": (3, 0, "trained", "point decoder"), "loss": (4, 0, "loss", "Chamfer distance\nto the cloud"),
    }, (("cloud", "codes"), ("codes", "vit"), ("prompts", "vit"), ("vit", "decoder"), ("decoder", "loss"))),
    ("ACT, stage II: that autoencoder is the teacher; the student predicts its features where it sees nothing", {
        "cloud": (0, 0.5, "data", "cloud in\npatches"), "teacher": (1.5, 0, "frozen", "autoencoder\nof stage I"),
        "mask": (1, 1, "data", "a fifth of them,\nat random"), "student": (2, 1, "trained", "3D student"),
        "decoder": (3, 1, "trained", "decoder"), "target": (3, 0, "data", "features of\nhidden patches"),
        "loss": (4, 0.5, "loss", "cosine distance"),
    }, (("cloud", "teacher"), ("teacher", "target"), ("cloud", "mask"), ("mask", "student"), ("student", "decoder"),
        ("decoder", "loss"), ("target", "loss"))),
    ("I2P-MAE, one stage: the image model looks at pictures of the cloud and says what to show and what to learn", {
        "cloud": (0, 0.5, "data", "cloud, tokens\nof three scales"), "images": (1, 0, "data", "three depth\nimages"),
        "vit": (2, 0, "frozen", "image\nTransformer"), "features": (3, 0, "data", "its features\nat the points"),
        "mask": (1, 1, "data", "a fifth of them,\nwhere it looks"), "student": (2, 1, "trained", "3D student"),
        "decoder": (3, 1, "trained", "decoder"), "two": (4, 0, "loss", "features of\nvisible tokens"),
        "three": (4, 1, "loss", "points of\nhidden tokens"),
    }, (("cloud", "images"), ("images", "vit"), ("vit", "features"), ("features", "two"), ("cloud", "mask"),
        ("vit", "mask"), ("mask", "student"), ("student", "decoder"), ("decoder", "three"), ("decoder", "two"))),
)


def draw(path):
    """Write the picture to ``path``."""
    figure = Figure(figsize=(10, 7.4), dpi=110, layout="constrained")
    for axes, (title, boxes, arrows) in zip(figure.subplots(len(PANELS), 1), PANELS, strict=True):
        for column, row, kind, text in boxes.values():
            x, y = place(column, row)
            axes.add_patch(FancyBboxPatch((x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, facecolor=COLOURS[kind],
                                          boxstyle="round,pad=0.05", edgecolor="#606060", linewidth=0.8))
            axes.text(x, y, text, ha="center", va="center", fontsize=9.5)
        for begin, end in arrows:
            draw_arrow(axes, place(*boxes[begin][:2]), place(*boxes[end][:2]))
        axes.set_title(title, fontsize=10.5, loc="left")
        axes.set(xlim=(-1.4, 15.2), ylim=(-2.15, 0.55), aspect="equal")
        axes.set_axis_off()
    figure.legend(handles=[Patch(facecolor=COLOURS[kind], edgecolor="#606060", label=text)
                           for kind, text in MEANING.items()], loc="outside lower center", ncols=4, frameon=False)
    FigureCanvasAgg(figure).print_png(path)


def place(column, row):
    """Return the middle of the box in a column and a row, 0 being the upper one."""
    return 3.45 * column, -1.65 * row


def draw_arrow(axes, begin, end):
    """Draw an arrow between the edges of the boxes whose middles are given."""
    (x0, y0), (x1, y1) = begin, end
    if abs(x1 - x0) > WIDTH:
        step = 1 if x1 > x0 else -1
        start, stop = (x0 + step * (WIDTH / 2 + 0.06), y0), (x1 - step * (WIDTH / 2 + 0.06), y1)
    else:
        step = 1 if y1 > y0 else -1
        start, stop = (x0, y0 + step * (HEIGHT / 2 + 0.06)), (x1, y1 - step * (HEIGHT / 2 + 0.06))
    axes.annotate("", stop, start, arrowprops={"arrowstyle": "-|>", "color": "#404040", "linewidth": 1.1})


if __name__ == "__main__":
    draw(pathlib.Path(__file__).parent / "methods.png")
