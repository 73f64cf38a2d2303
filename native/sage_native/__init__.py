"""Compiled kernels for SAGE. Each has a twin in pure Python in sage-core, which gives the same results without it."""

__version__ = "0.1.0"
