"""Tables, pictures and sections, and the self-contained HTML page that they make."""

from .content import Column, LazyRows, Picture, Row, Section, Table, Value, csv_bytes, csv_parts
from .html import page_bytes

__all__ = [
    "Column",
    "LazyRows",
    "Picture",
    "Row",
    "Section",
    "Table",
    "Value",
    "csv_bytes",
    "csv_parts",
    "page_bytes",
]
