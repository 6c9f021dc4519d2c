"""BeRay: give it a goal in words, watch it work, take the files."""

__version__ = "0.1.0"
