"""GLB, the binary form of glTF 2.0: the triangles of its scene, where its nodes put them.

Why a reader of our own: trimesh reads zeros for compressed and sparse accessors, takes normalised integers for
coordinates as they are and passes over fans and what hangs on a camera, all without a word.
"""
import base64
import json
import re
import struct

import numpy as np

from datasets.io import UnreadableError
from datasets.io.mesh import Mesh, check_indices

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3}
MOST_VALUES = 10**8  # of an accessor that is zero where it is not sparsely set
# extensions that may be required, as they change neither where triangles are nor how they are stored
HARMLESS = re.compile(r"(KHR|EXT|MSFT)_(materials|texture|lights)_\w+|KHR_mesh_quantization|KHR_xmp\w*")
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6


def read_glb(path) -> Mesh:
    """Return the triangles of a GLB file's scene; vertices alone where it has none.

    Sparse and normalised accessors are applied. Raises ValueError where geometry is compressed or instanced by an
    extension. Skins and morph targets are not applied: shapes are those at rest.
    """
    document, binary = chunks(path.read_bytes())
    for name in document.get("extensionsRequired", []):
        if not HARMLESS.fullmatch(name):
            raise UnreadableError(f"it needs the extension {name}, which cannot be decoded: export it without")
    accessors = Accessors(document, binary)
    vertices, triangles, total = [], [], 0
    for matrix, mesh in placed_meshes(document):
        for primitive in document["meshes"][mesh]["primitives"]:
            points = accessors.read(primitive["attributes"]["POSITION"], "VEC3")
            triangles.append(triangles_of(primitive, accessors, len(points)) + total)
            vertices.append(points @ matrix[:3, :3].T + matrix[:3, 3])
            total += len(points)
    return Mesh(np.concatenate([*vertices, np.empty((0, 3))]),
                np.concatenate([*triangles, np.empty((0, 3), np.int64)]))


def chunks(content: bytes) -> tuple[dict, bytes]:
    """Return the JSON document and the binary chunk, empty where there is none."""
    magic, version, length = struct.unpack_from("<4sII", content)
    if magic != b"glTF" or version != 2:
        raise ValueError("it is no glTF of version 2")
    if length > len(content):
        raise ValueError(f"it is cut off: {len(content)} of {length} bytes are there")
    found, position = [], 12
    while position + 8 <= length and len(found) < 2:
        size, kind = struct.unpack_from("<I4s", content, position)
        position += 8
        if position + size > length:
            raise ValueError("a chunk is cut off")
        found.append((kind, content[position:position + size]))
        position += size
    if not found or found[0][0] != b"JSON":
        raise ValueError("it has no JSON chunk")
    document = json.loads(found[0][1])
    if not isinstance(document, dict):
        raise ValueError("its JSON chunk is no object")
    return document, found[1][1] if len(found) > 1 and found[1][0] == b"BIN\0" else b""


def placed_meshes(document: dict) -> list[tuple[np.ndarray, int]]:
    """Return (matrix (4, 4), number of the mesh) for each node of the scene that has a mesh."""
    nodes = document.get("nodes", [])
    if "scenes" in document:
        roots = document["scenes"][document.get("scene", 0)].get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [number for number in range(len(nodes)) if number not in children]
    placed, seen, waiting = [], set(), [(np.eye(4), number) for number in reversed(roots)]
    while waiting:
        parent, number = waiting.pop()
        if number in seen:
            raise ValueError(f"node {number} is in its scene twice")
        seen.add(number)
        node = nodes[number]
        if "EXT_mesh_gpu_instancing" in node.get("extensions", {}):
            raise UnreadableError("it needs the extension EXT_mesh_gpu_instancing, which is not applied: export it "
                                  "without")
        matrix = parent @ matrix_of(node)
        if "mesh" in node:
            placed.append((matrix, node["mesh"]))
        waiting += [(matrix, child) for child in reversed(node.get("children", []))]
    return placed


def matrix_of(node: dict) -> np.ndarray:
    """Return the matrix (4, 4) of a node."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                     [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                     [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def triangles_of(primitive: dict, accessors: "Accessors", points: int) -> np.ndarray:
    """Return the triangles (T, 3) of a primitive with so many points; none of points and lines."""
    mode = primitive.get("mode", TRIANGLES)
    if mode not in range(7):
        raise ValueError(f"it has a primitive of mode {mode}")
    corners = np.arange(points)
    if "indices" in primitive:
        corners = accessors.read(primitive["indices"], "SCALAR").ravel().astype(np.int64)
    check_indices(corners, points)
    if mode < TRIANGLES or len(corners) < 3:
        return np.empty((0, 3), np.int64)
    if mode == TRIANGLES:
        return corners.reshape(-1, 3)
    first = corners[:-2] if mode == STRIP else np.full(len(corners) - 2, corners[0])
    return np.stack([first, corners[1:-1], corners[2:]], 1)


class Accessors:
    """The arrays of a document."""

    def __init__(self, document: dict, binary: bytes):
        self.document = document
        self.buffers = [buffer_of(entry, binary) for entry in document.get("buffers", [])]

    def read(self, number: int, kind: str) -> np.ndarray:
        """Return the array (count, width) of an accessor of the type ``kind``."""
        entry = self.document["accessors"][number]
        count, component = entry["count"], np.dtype(COMPONENTS[entry["componentType"]])
        if entry["type"] != kind:
            raise ValueError(f"accessor {number} is of {entry['type']}, not of {kind}")
        sparse = entry.get("sparse")
        if "bufferView" in entry:
            values = self.stored(entry, count, WIDTHS[kind], component)
        elif sparse and count <= MOST_VALUES:
            values = np.zeros((count, WIDTHS[kind]), component)
        else:
            raise UnreadableError(f"accessor {number} has no values: they may be compressed")
        if sparse:
            places = self.stored(sparse["indices"], sparse["count"], 1,
                                 np.dtype(COMPONENTS[sparse["indices"]["componentType"]])).ravel()
            check_indices(places, count)
            values = values.copy()
            values[places] = self.stored(sparse["values"], sparse["count"], WIDTHS[kind], component)
        if entry.get("normalized") and component.kind in "iu":
            return np.maximum(values / np.iinfo(component).max, -1)
        return values

    def stored(self, entry, count, width, component):
        """Return the array (count, width) that stands in the buffer view of ``entry``."""
        view = self.document["bufferViews"][entry["bufferView"]]
        if any("meshopt" in name for name in view.get("extensions", {})):
            raise UnreadableError("it is compressed by meshopt, which cannot be decoded: export it without")
        offset, size = entry.get("byteOffset", 0), width * component.itemsize
        stride = view.get("byteStride", size)
        if min(offset, count, view.get("byteOffset", 0)) < 0 or stride < size or (
                count and offset + (count - 1) * stride + size > view["byteLength"]):
            raise ValueError("an accessor reaches beyond its values")
        return np.ndarray((count, width), component, self.buffers[view["buffer"]], view.get("byteOffset", 0) + offset,
                          (stride, component.itemsize))


def buffer_of(entry: dict, binary: bytes) -> bytes:
    """Return the bytes of a buffer."""
    if "uri" not in entry:
        return binary
    if not entry["uri"].startswith("data:"):
        raise UnreadableError("its buffers are in other files")
    return base64.b64decode(entry["uri"].partition(",")[2], validate=True)
