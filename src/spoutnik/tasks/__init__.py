"""Verifiable tasks: a problem is a pure function of (options, split, seed, index), and a program decides whether an answer is right."""

from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.registry import make, names

__all__ = ["Problem", "Task", "make", "names"]
