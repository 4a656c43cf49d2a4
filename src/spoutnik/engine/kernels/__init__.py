"""A whole step of the engine in one call of a C++ extension: see `runner.KernelRunner`."""
