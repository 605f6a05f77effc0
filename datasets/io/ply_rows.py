"""The rows of a PLY file, element after element, as text and as bytes."""
import struct

import numpy as np

from datasets.io.numbers import equal_widths, plain_nans, read_columns, whole
from utils.text import decode


class TextRows:
    """The rows of a text PLY, a line each, element after element."""

    def __init__(self, body: bytes):
        self.lines = [line for line in plain_nans(decode(body)).split("\n") if line and not line.isspace()]
        self.position = 0

    def take(self, element) -> list[str]:
        """Return the lines of the next element."""
        lines = self.lines[self.position:self.position + element.count]
        if len(lines) < element.count:
            raise ValueError(f"{len(lines)} of {element.count} rows of {element.name} are there")
        self.position += element.count
        return lines

    def skip(self, element) -> None:
        self.take(element)

    def numbers(self, element, columns: list[int]) -> np.ndarray:
        """Return single numbers (count, len(columns)) of the next element."""
        lines = self.take(element)
        if any(entry.length for entry in element.properties):
            lines = [" ".join(values[0] for values in cells) for cells in self.cells(element, lines)]
        elif lines and equal_widths(lines) != len(element.properties):
            raise ValueError(f"'{lines[0].strip()[:40]}' is no row of {len(element.properties)} numbers")
        return read_columns(lines, columns)

    def lists(self, element, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of all lists of a column, one after another, and the lengths (count,) of the lists."""
        lines = self.take(element)
        if len(element.properties) == 1 and len({line.split(None, 1)[0] for line in lines}) == 1:
            table = read_columns(lines, list(range(equal_widths(lines))))
            if (table[:, 0] == table.shape[1] - 1).all() and (table % 1 == 0).all():
                table = table.astype(np.int64)
                return table[:, 1:].ravel(), table[:, 0]
        lists = [cells[column] for cells in self.cells(element, lines)]
        return (np.array([int(value) for values in lists for value in values[1:]], np.int64),
                np.array([len(values) - 1 for values in lists], np.int64))

    @staticmethod
    def cells(element, lines: list[str]):
        """Yield, for each line, the words of each property; those of a list begin with its length."""
        for line in lines:
            words, position, cells = line.split(), 0, []
            for entry in element.properties:
                end = position + 1
                if entry.length and position < len(words):
                    end += whole(words[position])
                cells.append(words[position:end])
                position = end
            if position != len(words):
                raise ValueError(f"'{line.strip()[:40]}' has {len(words)} words, not {position}")
            yield cells


class BinaryRows:
    """The rows of a binary PLY, element after element; ``order`` is ``<`` or ``>``."""

    def __init__(self, body: bytes, order: str):
        self.body, self.order, self.position = body, order, 0

    def skip(self, element) -> None:
        self.read(element, [])

    def numbers(self, element, columns: list[int]) -> np.ndarray:
        """Return single numbers (count, len(columns)) of the next element."""
        return np.stack([values.astype(np.float64) for values, _ in self.read(element, columns)], 1)

    def lists(self, element, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of all lists of a column, one after another, and the lengths (count,) of the lists."""
        values, lengths = self.read(element, [column])[0]
        return values.astype(np.int64).ravel(), lengths.astype(np.int64)

    def read(self, element, columns):
        """Return the values and, of lists, the lengths of each of ``columns``."""
        lists = [index for index, entry in enumerate(element.properties) if entry.length]
        sizes = self.row(element, self.position)[1] if lists and element.count else [0] * len(element.properties)
        kind = self.kind_of(element, sizes)
        there = (len(self.body) - self.position) // kind.itemsize
        if there >= element.count:  # all lists may be as long as those of the first row
            table = np.frombuffer(self.body, kind, element.count, self.position)
            if all((table[f"n{index}"] == sizes[index]).all() for index in lists):
                self.position += table.nbytes
                return [(table[f"v{column}"], table[f"n{column}"] if column in lists else None) for column in columns]
        elif not lists:
            raise ValueError(f"{there} of {element.count} rows of {element.name} are there")
        return self.unequal_rows(element, columns)

    def kind_of(self, element, sizes):
        """Return the data type of a row whose lists have these ``sizes``."""
        fields = []
        for index, (entry, size) in enumerate(zip(element.properties, sizes, strict=True)):
            if entry.length:
                fields.append((f"n{index}", self.order + entry.length))
            fields.append((f"v{index}", self.order + entry.type, *([(size,)] if entry.length else [])))
        return np.dtype(fields)

    def unequal_rows(self, element, columns):
        """Read row by row: where a list begins depends on the lengths of those before it."""
        values, lengths = [[] for _ in columns], [[] for _ in columns]
        for number in range(element.count):
            offsets, sizes, self.position = self.row(element, self.position, number)
            for place, column in enumerate(columns):
                size = sizes[column] * int(element.properties[column].type[1])
                values[place].append(self.body[offsets[column]:offsets[column] + size])
                lengths[place].append(sizes[column])
        return [(np.frombuffer(b"".join(parts), self.order + element.properties[column].type), np.array(sizes))
                for column, parts, sizes in zip(columns, values, lengths, strict=True)]

    def row(self, element, position, number=0):
        """Return where the values of each property begin, how many there are, and where the row ends."""
        offsets, sizes = [], []
        for entry in element.properties:
            size = 1
            if entry.length:
                end = position + int(entry.length[1])
                if end <= len(self.body):
                    size = struct.unpack_from(self.order + CODES[entry.length], self.body, position)[0]
                position = end
            offsets.append(position)
            sizes.append(size)
            position += size * int(entry.type[1])
            if size < 0 or position > len(self.body):
                raise ValueError(f"{number} of {element.count} rows of {element.name} are there")
        return offsets, sizes, position


CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}  # in module struct
