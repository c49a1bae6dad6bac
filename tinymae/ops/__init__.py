"""The mathematics: one concept a file, each forward directly above its backward. The contract is in NOTATION.md."""
