"""Tables, pictures and sections, and the self-contained HTML page that they make."""

from .content import Column, Picture, Section, Table, Value, csv_bytes
from .html import page_bytes

__all__ = ["Column", "Picture", "Section", "Table", "Value", "csv_bytes", "page_bytes"]
