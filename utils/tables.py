"""Tables of text."""


def align(rows, left=1):
    """Return ``rows`` of texts as lines of aligned columns, the first ``left`` columns flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) if column < left else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
