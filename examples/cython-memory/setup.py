"""Compile the module against the .pxd files of the rustllm that is installed."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import rustllm

setup(
    ext_modules=cythonize(
        [Extension("tokenscratch._ngrams", ["src/tokenscratch/_ngrams.pyx"])],
        include_path=[str(Path(rustllm.__file__).parents[1])],
        compiler_directives={"language_level": 3},
    )
)
