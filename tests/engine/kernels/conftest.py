"""Kernels are tested wherever a compiler is: sources that it cannot build fail these tests, they do not skip them."""

import pytest

from spoutnik.engine.kernels.build import compiler, library


@pytest.fixture(autouse=True, scope="session")
def _built():
    if compiler() is None:
        pytest.skip("no C++ compiler here")
    library()
