"""PCD, the file format of the Point Cloud Library: ascii, binary and compressed (its format description 0.7)."""
import numpy as np

from datasets.io.numbers import equal_widths, plain_nans, read_columns, whole
from utils.text import decode

MAX_POINTS = 100_000_000
TYPES = {"F": "f", "I": "i", "U": "u"}


def read_pcd(path) -> np.ndarray:
    """Return the fields x, y, z (N, 3) of a PCD file, which must hold as many points as it announces."""
    header, body = _split(path.read_bytes())
    fields = _fields(header)
    columns = [_column(fields, axis) for axis in "xyz"]
    number = _number(header)
    storage = header["DATA"][0].lower()
    if storage == "ascii":
        return _rows(body, fields, columns, number)
    kind = np.dtype([(f"field{index}", f"<{TYPES[letter]}{size}", count)
                     for index, (_, letter, size, count) in enumerate(fields)])
    columns = [f"field{column}" for column in columns]
    if storage == "binary":
        rows = np.frombuffer(body, kind, number)
        return np.stack([rows[column].reshape(number).astype(np.float64) for column in columns], 1)
    if storage == "binary_compressed":
        return _columns(_decompress(body), kind, columns, number)
    raise ValueError(f"DATA {storage}")


def _split(content):
    """Return the header as a dict of keywords → words, and the bytes behind it."""
    header, position = {}, 0
    while "DATA" not in header:
        end = content.index(b"\n", position)
        words = decode(content[position:end]).split()
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
        position = end + 1
    return header, content[position:]


def _fields(header):
    """Return (name, letter of the type, bytes, how many) of every field."""
    names = header.get("FIELDS") or header["COLUMNS"]
    counts = map(whole, header.get("COUNT", ["1"] * len(names)))
    return list(zip(names, header["TYPE"], map(whole, header["SIZE"]), counts, strict=True))


def _column(fields, axis):
    """Return the position of the one field that is called ``axis``."""
    places = [index for index, (name, *_) in enumerate(fields) if name.lower() == axis]
    if len(places) != 1 or fields[places[0]][3] != 1:
        raise ValueError("no fields x, y and z")
    return places[0]


def _number(header):
    """Return the number of points; WIDTH and HEIGHT, where they are there, must say the same."""
    size = None
    if "WIDTH" in header and "HEIGHT" in header:
        size = whole(header["WIDTH"][0]) * whole(header["HEIGHT"][0])
    number = whole(header["POINTS"][0]) if "POINTS" in header else size
    if number is None:
        raise ValueError("it does not say how many points it holds")
    if size not in (None, number):
        raise ValueError(f"it announces {number} points, but WIDTH and HEIGHT make {size}")
    if number > MAX_POINTS:
        raise ValueError(f"{number} points")
    return number


def _rows(body, fields, columns, number):
    """Read points as text, a line each."""
    lines = [line for line in plain_nans(decode(body)).split("\n") if line.strip() and not line.startswith("#")]
    if len(lines) != number:
        raise ValueError(f"{len(lines)} of {number} points")
    starts = np.cumsum([0, *(count for *_, count in fields)])
    if lines and equal_widths(lines) != starts[-1]:
        raise ValueError(f"'{lines[0].strip()[:40]}' is no line of {starts[-1]} numbers")
    return read_columns(lines, [int(starts[column]) for column in columns])


def _columns(body, kind, columns, number):
    """Read compressed points, which stand field after field."""
    points, position = {}, 0
    if len(body) != kind.itemsize * number:
        raise ValueError(f"{len(body)} bytes for {number} points of {kind.itemsize} bytes")
    for field in kind.names:
        size = kind[field].itemsize * number
        if field in columns:
            points[field] = np.frombuffer(body, kind[field].base, number, position)
        position += size
    return np.stack([points[column].astype(np.float64) for column in columns], 1)


def _decompress(body):
    """Undo LZF (Marc Lehmann's liblzf): literal runs, and copies of what has been written before."""
    packed, size = np.frombuffer(body, "<u4", 2).tolist()
    source = body[8:8 + packed]
    if len(source) < packed or size > 64 * MAX_POINTS:
        raise ValueError("the compressed points are cut off")
    result, position = bytearray(), 0
    while position < packed and len(result) <= size:
        control = source[position]
        position += 1
        if control < 32:  # a literal run
            result += source[position:position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += source[position]
            position += 1
        start = len(result) - ((control & 31) << 8) - source[position] - 1
        position += 1
        if start < 0:
            raise ValueError("a copy from before the start")
        length += 2
        while length > 0:  # a copy may overlap what it writes
            piece = result[start:start + length]
            result += piece
            start += len(piece)
            length -= len(piece)
    if len(result) != size:
        raise ValueError(f"{len(result)} bytes decompressed, {size} announced")
    return bytes(result)
