import os
import pathlib
import re
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import trimesh

from utils.plots.clouds import demo_picture, project, reconstruction_picture, write_ply

ROOT = pathlib.Path(__file__).parents[3]
CLOUD = np.random.default_rng(0).normal(0, 0.3, (200, 3)).astype(np.float32)


def ink(image):
    """Columns and rows of the pixels that are not white."""
    rows, columns = np.nonzero((image < 250).any(-1))
    return columns, rows


def test_projection_shows_y_up_and_keeps_lengths():
    right, up, near = project(np.array([[0.0, 1, 0]]))[0]
    assert right == pytest.approx(0)
    assert up > 0.9
    assert near > 0  # the viewer looks from above
    assert np.linalg.norm(project(CLOUD), axis=1) == pytest.approx(np.linalg.norm(CLOUD, axis=1), rel=1e-5)
    x, y, z = project(np.eye(3))
    assert np.cross(x, y) == pytest.approx(z)  # not mirrored


def test_reconstruction_picture_is_returned_and_written(tmp_path):
    clouds = {"input": CLOUD, "coarse": CLOUD[:50], "fine": CLOUD}
    image = reconstruction_picture(tmp_path / "a.png", clouds, "chair")
    assert image.dtype == np.uint8
    assert image.shape == (350, 900, 3)
    written = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
    assert (np.rint(255 * written) == image).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (reconstruction_picture(None, clouds, "chair") == image).all()


def test_panels_show_points_at_the_same_place():
    def drawn(image, panel):
        columns, rows = ink(image[60:, 300 * panel:300 * (panel + 1)])
        return columns.min(), columns.max(), rows.min(), rows.max()

    image = reconstruction_picture(None, {"input": CLOUD, "coarse": CLOUD, "fine": CLOUD * 0.5})
    assert np.abs(np.subtract(drawn(image, 0), drawn(image, 1))).max() <= 2
    left, right, _, _ = drawn(image, 0)
    small_left, small_right, _, _ = drawn(image, 2)
    assert (small_right - small_left) / (right - left) == pytest.approx(0.5, abs=0.06)


def test_points_far_outside_or_not_finite_leave_the_frame_alone():
    stray = np.concatenate([CLOUD, [[50, 0, 0], [np.nan, 0, 0]]])
    image = reconstruction_picture(None, {"input": CLOUD, "fine": CLOUD})
    with_stray = reconstruction_picture(None, {"input": CLOUD, "fine": stray})
    assert (image[60:, :300] == with_stray[60:, :300]).all()
    assert (image[:40, 300:] != with_stray[:40, 300:]).any()  # the caption tells that two are outside


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"coarse must be \(N, 3\), not \(5, 2\)"):
        reconstruction_picture(None, {"input": CLOUD, "coarse": np.zeros((5, 2))})


def test_demo_picture(tmp_path):
    objects = [(name, CLOUD, CLOUD[:50], CLOUD) for name in ("mug", "lamp")]
    curves = {"stage I": {"loss": [(0, 3.0), (1, 2.0)]}, "stage II": {"loss": [(0, 1.0)], "mean": [(0, 2.0)]}}
    image = demo_picture(tmp_path / "demo.png", objects, curves)
    assert image.shape == (560, 1300, 3)
    assert matplotlib.image.imread(tmp_path / "demo.png").shape[:2] == (560, 1300)
    columns, rows = ink(image)
    for left, right in ((0, 290), (290, 580), (580, 870), (900, 1300)):
        for top, bottom in ((0, 280), (280, 560)):
            there = (columns > left) & (columns < right) & (rows > top) & (rows < bottom)
            assert there.sum() > 200, (left, top)
    without_curves = demo_picture(None, objects[:1], {})
    assert without_curves.shape == (290, 1300, 3)
    embeddings = {"before": CLOUD[:, :2], "after": CLOUD[:, 1:]}
    whole = demo_picture(None, objects, curves, embeddings, np.arange(len(CLOUD)) % 20)
    assert whole.shape == (560, 1500, 3)
    columns, rows = ink(whole)
    for left, right in ((900, 1200), (1200, 1500)):
        for top, bottom in ((0, 280), (280, 560)):
            there = (columns > left) & (columns < right) & (rows > top) & (rows < bottom)
            assert there.sum() > 200, (left, top)


def test_ply_reads_back(tmp_path):
    write_ply(tmp_path / "c.ply", CLOUD)
    assert (tmp_path / "c.ply").read_bytes()[-12 * 200:] == CLOUD.astype("<f4").tobytes()
    assert (np.asarray(trimesh.load(tmp_path / "c.ply").vertices, np.float32) == CLOUD).all()
    assert [path.name for path in tmp_path.iterdir()] == ["c.ply"]


@pytest.mark.parametrize("colours", [np.array([[255, 0, 51]], np.uint8), np.array([[1.0, 0.0, 0.2]])])
def test_ply_with_colours(tmp_path, colours):
    write_ply(tmp_path / "c.ply", np.array([[1.0, 2.0, 3.0]]), colours)
    header, body = (tmp_path / "c.ply").read_bytes().split(b"end_header\n")
    assert header.decode().splitlines()[2:] == [
        "element vertex 1", "property float x", "property float y", "property float z",
        "property uchar red", "property uchar green", "property uchar blue"]
    assert np.frombuffer(body[:12], "<f4").tolist() == [1, 2, 3]
    assert list(body[12:]) == [255, 0, 51]


def test_ply_of_wrong_shapes_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"points must be \(N, 3\)"):
        write_ply(tmp_path / "c.ply", np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"colors \(2, 3\) and points \(3, 3\) differ"):
        write_ply(tmp_path / "c.ply", np.zeros((3, 3)), np.zeros((2, 3)))
    assert not list(tmp_path.iterdir())


def test_failed_writing_keeps_the_old_file(tmp_path, monkeypatch):
    write_ply(tmp_path / "c.ply", CLOUD)
    before = (tmp_path / "c.ply").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("utils.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_ply(tmp_path / "c.ply", CLOUD[:3])
    assert (tmp_path / "c.ply").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c.ply"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "inline", "no such backend", "agg"])
def test_a_backend_of_another_environment(tmp_path, backend):
    """Notebooks set MPLBACKEND for all that they start."""
    code = ("import sys; from utils.plots.clouds import reconstruction_picture; import numpy as np, os, matplotlib; "
            "reconstruction_picture(sys.argv[1], {'a': np.random.rand(50, 3)}); print(os.environ['MPLBACKEND'])")
    got = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], cwd=ROOT, text=True, check=True,
                         capture_output=True, env={**os.environ, "MPLBACKEND": backend})
    assert got.stdout == f"{backend}\n"
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_matplotlib_is_imported_in_one_place():
    """Elsewhere a foreign MPLBACKEND would end the import."""
    for folder in ("utils", "tools", "datasets", "models", "semantic_segmentation", "part_segmentation", "docs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert path.name == "agg.py" or not re.search(r"^\s*(import|from) matplotlib", text, re.M), path
