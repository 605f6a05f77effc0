"""Imports run one way: utils ← extensions ← models, datasets ← tools/engine ← tools/tasks ← programs."""
import ast
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# the first prefix that fits decides; a file may import what is of its own or of a lower rank
RANKS = {"utils": 0, "extensions": 1, "models": 2, "datasets": 2, "tools.engine": 3, "tools.tasks": 4,
         "tools.benchmarks": 5, "tools": 6, "semantic_segmentation": 6, "part_segmentation": 6, "main": 6,
         "main_autoencoder": 6}
# inside packages: who may import whom beside files of the same group
ALLOWED = {
    "models.layers": (), "models.foundation": (), "models.interface": (), "models.losses": (), "models.masking": (),
    "models.build": (),
    "models.act": ("models.layers", "models.foundation", "models.interface", "models.losses", "models.masking",
                   "models.build"),
    "models.i2p_mae": ("models.layers", "models.foundation", "models.interface", "models.masking", "models.build"),
    "models.pretrained": ("models.build",),
    "datasets.procedural": (), "datasets.clouds": (), "datasets.io": ("datasets.clouds",),
}
# paths of earlier versions, kept for scripts that import them
FORMER = {"datasets.point_files": "datasets.io.point_files", "models.foundation.image": "models.i2p_mae.image_model",
          "utils.pictures": "utils.plots.clouds"}
PROJECT = [ROOT / "main.py", ROOT / "main_autoencoder.py", *(
    path for folder in ("utils", "extensions", "models", "datasets", "tools", "semantic_segmentation",
                        "part_segmentation") for path in sorted((ROOT / folder).rglob("*.py")))]
# run by path, from wherever their users are
BY_PATH = ("tools", "semantic_segmentation", "part_segmentation")


def module_of(path):
    """Return the dotted name of a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """Return (line, module) of all imports of a file, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((node.lineno, name if file_of(name) else node.module) for name in names)


def file_of(module):
    """Return the file or the folder of a module of the project, or None."""
    path = ROOT.joinpath(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path) if found.exists()), None)


def within(module, prefix):
    return module == prefix or module.startswith(prefix + ".")


def rank(module):
    """Return how high a module of the project stands, None for those of others."""
    return next((RANKS[prefix] for prefix in sorted(RANKS, key=len, reverse=True) if within(module, prefix)), None)


def group(module):
    return next((prefix for prefix in ALLOWED if within(module, prefix)), None)


def why_not(module, other):
    """Return why ``module`` must not import ``other``; None where it may."""
    if rank(other) is None:
        return None
    if rank(other) > rank(module):
        return "is above it"
    if {module.split(".")[0], other.split(".")[0]} == {"models", "datasets"}:
        return "stands beside it: neither needs the other"
    own, package = group(module), module.split(".")[0]
    if own and within(other, package) and not within(other, own) and not any(
            within(other, prefix) for prefix in ALLOWED[own]):
        return f"is not for {own}"
    return None


def test_no_import_runs_upwards():
    wrong = [f"{path.relative_to(ROOT)}:{line}: {other} {reason}" for path in PROJECT for line, other in imported(path)
             if module_of(path) not in FORMER and (reason := why_not(module_of(path), other))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("former", FORMER)
def test_former_paths_serve_scripts_and_nobody_here(former):
    old, new = importlib.import_module(former), importlib.import_module(FORMER[former])
    assert old.__all__
    same = set(old.__all__) - {"build_image_model"}  # which takes keywords, as before
    assert all(getattr(old, name) is getattr(new, name) for name in same)
    assert [path for path in PROJECT for _, other in imported(path) if within(other, former)] == []


def test_the_former_way_to_build_an_image_model():
    model = importlib.import_module("models.foundation.image").build_image_model(
        visual_encoder="vit_tiny_patch16_224", feat_dim=192, pretrained=False, kwargs={"depth": 1})
    assert len(model.model.blocks) == 1


def test_every_file_has_a_rank():
    assert len(PROJECT) > 100
    assert [path for path in PROJECT if rank(module_of(path)) is None] == []


def test_only_what_is_run_by_path_changes_the_path():
    """``extensions/setup.py`` is run by pip, without the project."""
    changing = [path.relative_to(ROOT) for path in PROJECT if "sys.path" in path.read_text()]
    assert [str(path) for path in changing if path.parts[0] not in BY_PATH or len(path.parts) > 2] == [
        "extensions/setup.py"]


@pytest.mark.parametrize(("module", "other"), [
    ("utils.text", "extensions.ops"), ("models.act.dvae", "tools.engine.metrics"), ("datasets.base", "models.build"),
    ("models.build", "datasets"), ("tools.engine.trainer", "tools.tasks.probing"),
    ("tools.tasks.probing", "tools.demo"), ("tools.tasks.probing", "main"),
    ("models.layers.init", "models.act.dvae"), ("models.act.dvae", "models.i2p_mae.encoder"),
    ("models.foundation.base", "models.act.dvae"), ("datasets.io.ply", "datasets.base")])
def test_what_is_refused(module, other):
    assert why_not(module, other)


@pytest.mark.parametrize(("module", "other"), [
    ("tools.demo", "tools.visualize"), ("models.act.dvae", "models.layers.dgcnn"), ("utils.text", "numpy"),
    ("semantic_segmentation.main", "tools.tasks.segmentation"), ("models.pretrained", "utils.config")])
def test_what_is_allowed(module, other):
    assert why_not(module, other) is None
