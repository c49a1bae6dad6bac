"""Compare a backward pass with finite differences of its forward pass: for the functions of tinymae and for yours."""
from tinymae.gradcheck.check import Row, format_rows, gradcheck

__all__ = (
    "Row", "format_rows", "gradcheck",
)
