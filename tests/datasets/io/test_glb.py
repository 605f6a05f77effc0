"""GLB files: the geometry of the scene as the standard describes it, or a refusal."""
import base64
import json
import struct

import numpy as np
import pytest
import trimesh

from datasets.io.glb import read_glb
from datasets.io.point_files import read_points
from utils.errors import DataError

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
FACES = np.array([0, 1, 2, 0, 2, 3], "<u2")
HALVES = [[0, 1, 2], [0, 2, 3]]


def square():
    """Return the document of a square."""
    return {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"},
                          {"bufferView": 1, "componentType": 5123, "count": 6, "type": "SCALAR"}],
            "bufferViews": [{"buffer": 0, "byteLength": 48}, {"buffer": 0, "byteOffset": 48, "byteLength": 12}]}


BINARY = SQUARE.tobytes() + FACES.tobytes()


def glb(document, binary=BINARY):
    binary += bytes(-len(binary) % 4)
    text = json.dumps({"buffers": [{"byteLength": len(binary)}], **document}).encode()
    text += b" " * (-len(text) % 4)
    return (struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(binary), len(text), b"JSON") + text
            + struct.pack("<I4s", len(binary), b"BIN\0") + binary)


def read(tmp_path, content):
    (tmp_path / "a.glb").write_bytes(content)
    return read_glb(tmp_path / "a.glb")


def test_plain(tmp_path):
    mesh = read(tmp_path, glb(square()))
    assert np.array_equal(mesh.vertices, SQUARE)
    assert mesh.triangles.tolist() == HALVES
    points = read_points(tmp_path / "a.glb", 1000)
    assert (points.min(0), points.max(0)) == (pytest.approx([0, 0, 0], abs=0.05), pytest.approx([1, 1, 0], abs=0.05))


def test_bytes_behind_and_buffers_in_the_document(tmp_path):
    assert read(tmp_path, glb(square()) + b"more").triangles.tolist() == HALVES
    uri = "data:application/octet-stream;base64," + base64.b64encode(SQUARE.tobytes() + FACES.tobytes()).decode()
    content = glb({**square(), "buffers": [{"byteLength": 60, "uri": uri}]}, b"")
    assert np.array_equal(read(tmp_path, content).vertices, SQUARE)
    assert np.array_equal(read(tmp_path, glb({**square(), "extensionsRequired": ["KHR_texture_transform"]})).vertices,
                          SQUARE)


@pytest.mark.parametrize(("mode", "corners", "triangles"), [
    (4, [0, 1, 2, 0, 2, 3], HALVES), (5, [0, 1, 3, 2], [[0, 1, 3], [1, 3, 2]]), (6, [0, 1, 2, 3], HALVES),
    (0, [0, 1, 2, 3], []), (1, [0, 1], []), (3, [0, 1, 2], [])])
def test_modes(tmp_path, mode, corners, triangles):
    document = square()
    document["meshes"][0]["primitives"][0]["mode"] = mode
    document["accessors"][1]["count"] = len(corners)
    mesh = read(tmp_path, glb(document, SQUARE.tobytes() + np.array(corners, "<u2").tobytes() + bytes(12)))
    assert mesh.triangles.tolist() == triangles
    if not triangles:
        assert np.array_equal(read_points(tmp_path / "a.glb"), SQUARE)


def test_without_indices(tmp_path):
    document = square()
    del document["meshes"][0]["primitives"][0]["indices"]
    document["accessors"][0]["count"] = 3
    assert read(tmp_path, glb(document)).triangles.tolist() == [[0, 1, 2]]


def test_interleaved_and_offset(tmp_path):
    rows = np.zeros(4, [("pad", "<f4"), ("position", "<f4", 3), ("colour", "u1", 4)])
    rows["position"] = SQUARE
    document = square()
    document["bufferViews"] = [{"buffer": 0, "byteLength": 80, "byteStride": 20},
                               {"buffer": 0, "byteOffset": 80, "byteLength": 12}]
    document["accessors"][0]["byteOffset"] = 4
    assert np.array_equal(read(tmp_path, glb(document, rows.tobytes() + FACES.tobytes())).vertices, SQUARE)


def test_sparse_accessors_are_applied(tmp_path):
    document = square()
    sparse = {"count": 2, "indices": {"bufferView": 2, "componentType": 5123}, "values": {"bufferView": 3}}
    document["accessors"][0]["sparse"] = sparse
    document["bufferViews"] += [{"buffer": 0, "byteOffset": 60, "byteLength": 4},
                                {"buffer": 0, "byteOffset": 64, "byteLength": 24}]
    values = np.array([[5, 5, 5], [6, 6, 6]], "<f4")
    binary = SQUARE.tobytes() + FACES.tobytes() + np.array([1, 3], "<u2").tobytes() + values.tobytes()
    assert read(tmp_path, glb(document, binary)).vertices.tolist() == [[0, 0, 0], [5, 5, 5], [1, 1, 0], [6, 6, 6]]
    del document["accessors"][0]["bufferView"]
    assert read(tmp_path, glb(document, binary)).vertices.tolist() == [[0, 0, 0], [5, 5, 5], [0, 0, 0], [6, 6, 6]]
    sparse["indices"]["bufferView"], document["bufferViews"][2]["byteLength"] = 2, 2
    with pytest.raises(DataError, match="an accessor reaches beyond its values"):
        read_points_of(tmp_path, glb(document, binary))


def read_points_of(tmp_path, content):
    (tmp_path / "a.glb").write_bytes(content)
    return read_points(tmp_path / "a.glb")


@pytest.mark.parametrize(("component", "kind", "normalized", "scale"), [
    (5120, "<i1", True, 127), (5121, "<u1", True, 255), (5122, "<i2", True, 32767), (5123, "<u2", True, 65535),
    (5123, "<u2", False, 1)])
def test_quantized_positions(tmp_path, component, kind, normalized, scale):
    document = square()
    document["accessors"][0] |= {"componentType": component, "normalized": normalized}
    document["bufferViews"][0]["byteStride"] = 8
    document["extensionsRequired"] = ["KHR_mesh_quantization"]
    rows = np.zeros(4, {"names": ["v"], "formats": [(kind, 3)], "itemsize": 8})
    rows["v"] = SQUARE * scale
    binary = rows.tobytes().ljust(48, b"\0") + FACES.tobytes()
    assert read(tmp_path, glb(document, binary)).vertices == pytest.approx(SQUARE)


def test_nodes_move_what_hangs_on_them(tmp_path):
    document = square()
    half = np.sqrt(0.5)
    document["nodes"] = [{"translation": [10, 0, 0], "rotation": [0, 0, half, half], "scale": [2, 1, 1], "camera": 0,
                          "children": [1, 2]}, {"mesh": 0},
                         {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 7, 1]}, {"mesh": 0}]
    vertices = read(tmp_path, glb(document)).vertices
    turned = [[10, 0, 0], [10, 2, 0], [9, 2, 0], [9, 0, 0]]
    assert vertices == pytest.approx(np.concatenate([turned, np.array(turned) + (0, 0, 7)]))  # the last is in no scene
    del document["scenes"], document["scene"]
    assert len(read(tmp_path, glb(document)).vertices) == 12


def test_it_agrees_with_trimesh(tmp_path):
    scene = trimesh.Scene()
    rng = np.random.default_rng(0)
    for number in range(4):
        transform = trimesh.transformations.random_rotation_matrix(rng.random(3))
        transform[:3, 3] = rng.random(3)
        scene.add_geometry(trimesh.creation.icosphere(1), transform=transform, node_name=str(number))
    scene.export(tmp_path / "a.glb")
    ours, theirs = read_glb(tmp_path / "a.glb"), trimesh.load(tmp_path / "a.glb").to_geometry()
    assert ours.triangles.shape == theirs.faces.shape
    order = [np.lexsort(np.round(mesh, 5).T) for mesh in (ours.vertices, theirs.vertices)]
    assert ours.vertices[order[0]] == pytest.approx(theirs.vertices[order[1]], abs=1e-5)


def draco(document):
    document["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    document["meshes"][0]["primitives"][0]["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    for accessor in document["accessors"]:
        del accessor["bufferView"]


def change(path, value):
    """Return a function that sets the entry ``path`` of a document."""
    def apply(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value
    return apply


@pytest.mark.parametrize(("alter", "message"), [
    (change(("extensionsRequired",), ["KHR_draco_mesh_compression"]),
     "a.glb cannot be read: it needs the extension KHR_draco_mesh_compression, which cannot be decoded"),
    (change(("extensionsRequired",), ["EXT_meshopt_compression"]), "EXT_meshopt_compression, which cannot be decoded"),
    (change(("extensionsRequired",), ["KHR_meshopt_compression"]), "KHR_meshopt_compression, which cannot be decoded"),
    (change(("extensionsRequired",), ["XYZ_unheard_of"]), "XYZ_unheard_of, which cannot be decoded"),
    (draco, "accessor 0 has no values: they may be compressed"),
    (change(("bufferViews", 0, "extensions"), {"EXT_meshopt_compression": {}}), "compressed by meshopt"),
    (change(("nodes", 0, "extensions"), {"EXT_mesh_gpu_instancing": {}}), "EXT_mesh_gpu_instancing, which is not"),
    (change(("accessors", 0, "count"), 5), "an accessor reaches beyond its values"),
    (change(("accessors", 0, "count"), -1), "an accessor reaches beyond its values"),
    (change(("accessors", 0, "byteOffset"), 4), "an accessor reaches beyond its values"),
    (change(("accessors", 0, "byteOffset"), -4), "an accessor reaches beyond its values"),
    (change(("accessors", 0, "count"), 3), "a face names vertex 3, but there are 3"),
    (change(("accessors", 1, "count"), 5), "cannot reshape"),
    (change(("accessors", 0, "type"), "VEC2"), "of VEC2, not"),
    (change(("bufferViews", 0, "byteLength"), 40), "an accessor reaches beyond its values"),
    (change(("bufferViews", 1, "byteOffset"), 52), "damaged or not a .glb file"),
    (change(("meshes", 0, "primitives", 0, "mode"), 7), "a primitive of mode 7"),
    (change(("nodes", 0, "children"), [0]), "node 0 is in its scene twice"),
    (change(("nodes", 0, "mesh"), 1), "damaged"),
    (change(("buffers",), [{"uri": "other.bin", "byteLength": 60}]), "its buffers are in other files"),
])
def test_what_cannot_be_read_is_refused(tmp_path, alter, message):
    document = square()
    alter(document)
    with pytest.raises(DataError, match=message):
        read_points_of(tmp_path, glb(document))


@pytest.mark.parametrize("content", [
    glb(square())[:-1], glb(square())[:100], glb(square())[:12], b"glTF", b"",
    glb(square()).replace(b"JSON", b"JSOM"), glb(square()).replace(b'"scene"', b'"scene')])
def test_damage(tmp_path, content):
    with pytest.raises(DataError, match="a.glb is damaged or not a .glb file"):
        read_points_of(tmp_path, content)
