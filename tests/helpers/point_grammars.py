"""Point files of random layout whose right content is known.

A grammar takes a random generator and returns (content, points, triangles); ``points`` is None where the file says
something that is not so, which can only be refused.
"""
import struct

import numpy as np

LINE_ENDS = ("\n", "\n", "\r\n")
WORDS = ("chair", "red", "a b", "p-1", "Stühle", "id_7", "")
COMMENTS = ("made by hand", "Gebäude, 25 °C", "x y", "1 2 3", "50 %", "end")


def pick(rng, *choices):
    return choices[rng.integers(len(choices))]


def encode(rng, text):
    """Return ``text`` in one of the encodings that people have."""
    encoding = pick(rng, "utf-8", "utf-8", "utf-8-sig", "latin-1")
    return text.replace("\n", pick(rng, *LINE_ENDS)).encode(encoding)


def sprinkle(rng, lines, comments, least=0):
    """Return the lines with blank lines and comments between them, behind the first ``least``."""
    result = lines[:least]
    for line in lines[least:]:
        while rng.random() < 0.1:
            result.append(pick(rng, "", "  ", *comments))
        result.append(line)
    return result


def text_cloud(rng):
    """A text cloud; in one in eight a coordinate is a word, in one in 25 the count is wrong."""
    count, separator = int(rng.integers(1, 9)), pick(rng, " ", "  ", "\t", ",", ", ", ";", "; ")
    header = pick(rng, None, None, "names", "names", "comment")
    kinds = ["x", "y", "z"] + [pick(rng, "number", "whole", "word") for _ in range(rng.integers(0, 4))]
    if header:
        kinds = [kinds[place] for place in rng.permutation(len(kinds))]
    form = pick(rng, "%.3f", "%.6f", "%g", "%.4e", "%d", "%+.2f")
    words = WORDS[:2] if separator.isspace() and separator != "\t" else WORDS
    columns = [column(rng, kind, count, form, words) for kind in kinds]
    points = np.array([list(map(float, columns[kinds.index(axis)])) for axis in "xyz"]).T
    comma = rng.random() < 0.3
    if comma:
        columns = [[value.replace(".", ",") for value in values] for values in columns]
    damaged = rng.random() < 0.125 and not (comma and separator[0] == ",")
    if damaged:
        columns[kinds.index(pick(rng, "x", "y", "z"))][int(rng.integers(count))] = "five"
    front, announced = above(rng, kinds, header, separator), count
    if rng.random() < 0.2:
        announced += int(rng.random() < 0.2)
        front.append(str(announced))
    lines = [separator.join(cells) for cells in zip(*columns, strict=True)]
    comments = [pick(rng, "# ", "// ", "#") + pick(rng, *COMMENTS[:4])]
    text = "\n".join(front + sprinkle(rng, lines, comments)) + pick(rng, "\n", "", "\n\n")
    return encode(rng, text), None if damaged or announced != count else points, []


def column(rng, kind, count, form, words):
    """Return the printed cells of a column."""
    if kind == "word":
        return [pick(rng, *words)] * count
    if kind == "whole":
        return [str(value) for value in rng.integers(0, 300, count)]
    return [form % value for value in rng.normal(scale=pick(rng, 1, 30, 5000), size=count)]


def above(rng, kinds, header, separator):
    """Return the lines above the points: a title, and a header where ``header`` says so."""
    front = [pick(rng, "My scan", "Exported by Foo 2.1", "Scan of the second of May")] if rng.random() < 0.2 else []
    names = [kind if kind in "xyz" else f"{pick(rng, 'intensity', 'r', 'nx', 'label')}{place}"
             for place, kind in enumerate(kinds)]
    if header == "names":
        names = [pick(rng, str.lower, str.upper)(name) for name in names]
        if rng.random() < 0.2:
            names = [f"{name} [m]" for name in names]
        return [*front, separator.join(names)]
    return ["# " + separator.join(names), *front] if header else front


def convex(rng, count):
    """Return printed vertices (count, 3) no face of which, with corners in their order, is concave."""
    places = np.sort(rng.permutation(50)[:count])
    scale, offset = rng.integers(1, 4, 3), rng.integers(-9, 9, 3)
    points = np.stack([places, places ** 2, 0 * places], 1) * scale / 4 + offset
    return [[pick(rng, "%.3f", "%g", "%.9e") % value for value in point] for point in points]


def polygons(rng, vertices, least=3):
    """Return random faces, and the triangles that fans about their first corners make of them."""
    faces = [np.sort(rng.permutation(vertices)[:rng.integers(least, min(vertices, 6) + 1)]).tolist()
             for _ in range(rng.integers(0, 6))] if vertices >= 3 else []
    triangles = [(face[0], face[i], face[i + 1]) for face in faces for i in range(1, len(face) - 1)]
    return faces, triangles


TYPES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}


def ply(rng):
    """A PLY of any byte order; in one in six there are fewer rows than announced."""
    order = pick(rng, "ascii", "binary_little_endian", "binary_big_endian")
    vertices = convex(rng, int(rng.integers(3, 9)))
    faces, triangles = polygons(rng, len(vertices))
    elements = [("vertex", *vertex_rows(rng, vertices))]
    if rng.random() < 0.7:
        elements.append(("face", *face_rows(rng, faces)))
    else:
        triangles = []
    for name in ("camera", "material"):
        if rng.random() < 0.3:
            elements.insert(int(rng.integers(len(elements) + 1)), (name, *random_rows(rng)))
    missing = rng.random() < 0.17 and bool(elements[-1][2])
    header = ["ply", f"format {order} 1.0"]
    for name, properties, rows in elements:
        header += [f"element {name} {len(rows)}", *(f"property {kind} {title}" for kind, title in properties)]
    header = sprinkle(rng, header, ["comment " + pick(rng, *COMMENTS), "obj_info " + pick(rng, *COMMENTS)], 2)
    header = [line for line in header if line.strip()] + ["end_header\n"]
    if missing:
        elements[-1][2].pop()
    end = pick(rng, *LINE_ENDS)
    content = "\n".join(header).replace("\n", end).encode(pick(rng, "utf-8", "latin-1"))
    if order == "ascii":
        content += "\n".join(" ".join(map(str, flat(row))) for _, _, rows in elements for row in rows).encode()
        content += pick(rng, b"", b"\n", b"\ncomment behind", b"\n\n") if not missing else b"\n"
    else:
        mark = "<" if "little" in order else ">"
        content += b"".join(packed(mark, properties, row) for _, properties, rows in elements for row in rows)
        content += pick(rng, b"", b"\n", bytes(9)) if not missing else b""
    return content, None if missing else np.array(vertices, float), triangles


def vertex_rows(rng, vertices):
    """Return the properties and rows of vertices, with others between the coordinates."""
    kind = pick(rng, "float", "double", "double")
    properties = [(kind, axis) for axis in "xyz"]
    extra = [(pick(rng, "uchar", "int", "float", "list uchar int"), f"extra{index}")
             for index in range(rng.integers(3))]
    order = rng.permutation(len(properties) + len(extra))
    rows = [[*vertex, *(value_of(rng, kind) for kind, _ in extra)] for vertex in vertices]
    return [[*properties, *extra][place] for place in order], [[row[place] for place in order] for row in rows]


def face_rows(rng, faces):
    """Return the properties and rows of faces, with others around the list."""
    corners = (f"list {pick(rng, 'uchar', 'int', 'ushort')} {pick(rng, 'int', 'uint', 'short')}",
               pick(rng, "vertex_indices", "vertex_index"))
    front = [("uchar", "flag")] if rng.random() < 0.3 else []
    behind = [("list uchar float", "texcoord")] if rng.random() < 0.3 else []
    rows = [[*(value_of(rng, kind) for kind, _ in front), face, *(value_of(rng, kind) for kind, _ in behind)]
            for face in faces]
    return [*front, corners, *behind], rows


def random_rows(rng):
    properties = [(pick(rng, "float", "int", "list uchar short"), f"value{index}")
                  for index in range(rng.integers(1, 4))]
    return properties, [[value_of(rng, kind) for kind, _ in properties] for _ in range(rng.integers(0, 4))]


def value_of(rng, kind):
    if kind.startswith("list"):
        return rng.integers(0, 100, rng.integers(0, 4)).tolist()
    return int(rng.integers(0, 100))


def flat(row):
    """Return the words of a row of text."""
    return [word for value in row for word in ([len(value), *value] if isinstance(value, list) else [value])]


def packed(mark, properties, row):
    """Return the bytes of a row."""
    result = b""
    for (kind, _), value in zip(properties, row, strict=True):
        if isinstance(value, list):
            _, length, kind = kind.split()
            result += struct.pack(mark + TYPES[length], len(value))
            result += struct.pack(f"{mark}{len(value)}{TYPES[kind]}", *value)
        else:
            result += struct.pack(mark + TYPES[kind], float(value) if kind in ("float", "double") else int(value))
    return result


def off(rng):
    """An OFF file; in one in six the counts are wrong."""
    vertices = convex(rng, int(rng.integers(3, 9)))
    faces, triangles = polygons(rng, len(vertices))
    behind = {"OFF": 0, "COFF": 4, "NOFF": 3, "STOFF": 2, "CNOFF": 7}
    keyword = pick(rng, *behind)
    counts = [len(vertices), len(faces)]
    wrong = rng.random() < 0.17
    if wrong:
        counts[int(rng.integers(2))] += int(pick(rng, -1, 1, 5))
    counts = " ".join(map(str, counts + [0] * int(rng.integers(2))))
    blank = pick(rng, " ", "  ", "\t")
    lines = [blank.join([*vertex, *["1"] * behind[keyword]]) for vertex in vertices]
    lines += [blank.join(map(str, [len(face), *face, *pick(rng, [], [255, 0, 0], [0.5, 0.5, 0.5, 1])]))
              for face in faces]
    lines = [line + (pick(rng, " # a", "#b 1") if rng.random() < 0.1 else "") for line in lines]
    front = pick(rng, [keyword, counts], [keyword, counts], [keyword + counts], [f"{keyword} {counts}"])
    text = "\n".join(sprinkle(rng, front + lines, ["# " + pick(rng, *COMMENTS)])) + pick(rng, "\n", "", "\n\n")
    return encode(rng, text), None if wrong or counts.startswith("-") else np.array(vertices, float), triangles


def obj(rng):
    """An OBJ file; in one in eight a face names a vertex that is not there."""
    vertices = convex(rng, int(rng.integers(3, 9)))
    faces, triangles = polygons(rng, len(vertices))
    blank, indent = pick(rng, " ", "\t", "  ", " \t"), pick(rng, "", "", "  ", "\t")
    behind = pick(rng, [], ["1.0"], ["0.5", "0.5", "0.5"])
    lines = [indent + blank.join(["v", *vertex, *behind]) for vertex in vertices]
    form = pick(rng, "{}", "{}/1", "{}//1", "{}/1/1")
    back, wrong = rng.random() < 0.3, bool(faces) and rng.random() < 0.125
    for face in faces:
        names = [corner - len(vertices) if back else corner + 1 for corner in face]
        if wrong:
            names[-1] = pick(rng, len(vertices) + 1, 0, -len(vertices) - 1)
        words = ["f", *map(form.format, names)]
        place = int(rng.integers(2, len(words)))
        words[place] = "\\\n" * (rng.random() < 0.1) + words[place]
        lines.append(indent + blank.join(words))
    others = ["# " + pick(rng, *COMMENTS) + pick(rng, "", "\\"), "vn 0 0 1", "vt 0.5\t0.5", "s off", "g a 1",
              "usemtl m"]
    text = "\n".join(sprinkle(rng, lines, others)) + pick(rng, "\n", "", "\n\n")
    return encode(rng, text), None if wrong else np.array(vertices, float), triangles


GRAMMARS = {"txt": text_cloud, "ply": ply, "off": off, "obj": obj}
