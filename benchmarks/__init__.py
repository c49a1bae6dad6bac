"""Measurements: `python -m benchmarks` compares tinymae with other libraries, `python -m benchmarks.growth` measures laws."""
