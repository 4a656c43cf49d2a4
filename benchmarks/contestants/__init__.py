"""The engines that take part in `benchmarks/engine.py`: one file each, all behind `Contestant`."""
