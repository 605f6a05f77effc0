"""PCD, the file format of the Point Cloud Library: ascii, binary and compressed (its format description 0.7)."""
import numpy as np

from utils.errors import DataError

MAX_POINTS = 100_000_000


def read_pcd(path):
    """Return the fields x, y, z (N, 3) of a PCD file, without the points that are marked invalid by NaN.

    Raises DataError, naming the file, where it is damaged or has no such fields.
    """
    content = path.read_bytes()
    try:
        header, body = _split(content)
        kind = np.dtype([(f"{name}{index}", f"<{_TYPES[letter]}{size}", count) for index, (name, letter, size, count)
                         in enumerate(_fields(header))])
        columns = [next(field for field in kind.names if field.rstrip("0123456789") == axis) for axis in "xyz"]
        number = int(header["POINTS"][0])
        if not 0 <= number <= MAX_POINTS:
            raise ValueError(f"{number} points")
        storage = header["DATA"][0]
        if storage == "ascii":
            table = np.loadtxt(body.decode().splitlines(), ndmin=2)[:number]
            starts = dict(zip(kind.names, np.cumsum([0, *(kind[field].itemsize // kind[field].base.itemsize
                                                          for field in kind.names)]), strict=False))
            points = table[:, [starts[column] for column in columns]]
        elif storage == "binary":
            rows = np.frombuffer(body, kind, number)
            points = np.stack([rows[column].reshape(number) for column in columns], 1)
        elif storage == "binary_compressed":
            points = _columns(_decompress(body), kind, columns, number)
        else:
            raise ValueError(f"DATA {storage}")
        if len(points) < number:
            raise ValueError(f"{len(points)} of {number} points")
    except (KeyError, ValueError, IndexError, StopIteration, UnicodeDecodeError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:100] or "no fields x, y and z"
        raise DataError(f"{path} is damaged or not a PCD file ({reason})") from error
    points = points.astype(np.float64)
    return points[~np.isnan(points).any(1)]


_TYPES = {"F": "f", "I": "i", "U": "u"}


def _split(content):
    """Return the header as a dict of keywords → words, and the bytes behind it."""
    header, position = {}, 0
    while "DATA" not in header:
        end = content.index(b"\n", position)
        words = content[position:end].decode("ascii").split()
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
        position = end + 1
    return header, content[position:]


def _fields(header):
    names = header["FIELDS"]
    counts = map(int, header.get("COUNT", ["1"] * len(names)))
    return list(zip(names, header["TYPE"], map(int, header["SIZE"]), counts, strict=True))


def _columns(body, kind, columns, number):
    """Read compressed points, which stand field after field."""
    points, position = {}, 0
    for field in kind.names:
        size = kind[field].itemsize * number
        if field in columns:
            points[field] = np.frombuffer(body, kind[field].base, number, position)
        position += size
    return np.stack([points[column] for column in columns], 1)


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
