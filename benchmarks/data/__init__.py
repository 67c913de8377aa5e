"""Data sets by name or folder, decoded once into memory-mapped arrays."""

from .loading import Data, Part, load_data

__all__ = ["Data", "Part", "load_data"]
