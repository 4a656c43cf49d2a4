"""Rehearsals are told of an accelerator's memory, or of this machine's: not of a real accelerator's."""

import pytest

from spoutnik.device import VARIABLE


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setenv(VARIABLE, "cpu")
