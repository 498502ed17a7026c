"""Format tables for a terminal."""

from collections.abc import Sequence


def format_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format rows as a table with aligned columns, numbers to the right."""
    lines = [tuple(head), *(tuple(row) for row in body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numeric = [bool(body) and all(row[i].isdecimal() for row in body) for i in range(len(head))]
    aligned = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([aligned[0], rule, *aligned[1:]])
