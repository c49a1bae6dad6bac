"""Ops: one concept a file, each a forward with its backward below it. The contract is in NOTATION.md."""
