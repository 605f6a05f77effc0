"""What is used of matplotlib, whose canvas Agg draws into memory: no window, no pyplot, no backend.

It is imported without the environment variable MPLBACKEND. Notebooks set that for all processes that they start, to a
module that another environment need not have, which would end the import with an error.
"""
import contextlib
import os
import sys


@contextlib.contextmanager
def _no_backend():
    """Unset MPLBACKEND inside the block; afterwards it counts again for those who show windows, if it is known."""
    name = os.environ.get("MPLBACKEND")
    if name is None or "matplotlib" in sys.modules:
        yield
        return
    del os.environ["MPLBACKEND"]
    try:
        yield
        with contextlib.suppress(ValueError):  # not known here
            sys.modules["matplotlib"].rcParams["backend"] = name
    finally:
        os.environ["MPLBACKEND"] = name


with _no_backend():
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.image import imsave
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyBboxPatch, Patch

__all__ = ["ConstrainedLayoutEngine", "FancyBboxPatch", "Figure", "FigureCanvasAgg", "Line2D",
           "LinearSegmentedColormap", "Patch", "colormaps", "imsave"]
