"""Rows of cells in columns, as wide as what stands in them."""

from collections.abc import Sequence

from beray.cli.terminal import cell_width


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines; the last cell of each ends its line."""
    widths = [max(cell_width(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] + [0]
    return [
        "  ".join(cell + " " * (width - cell_width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
