"""Compiles the kernels: setuptools has no stable way to name extensions in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [Extension("sage_native.packing", ["sage_native/packing.pyx"])],
        # Bounds checks, overflow checks and the rest stay on; a loop that is proven switches them off for itself.
        compiler_directives={"language_level": 3, "boundscheck": True, "wraparound": True, "cdivision": False},
    )
)
