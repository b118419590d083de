"""Every example in the documentation of the code is run."""

import doctest
import importlib
import pkgutil

import pytest

import tailorbird

NOT_IMPORTED = ("tailorbird.__main__",)
"""Modules that do something when they are imported."""

MODULES = [
    found.name
    for found in pkgutil.walk_packages(tailorbird.__path__, "tailorbird.")
    if found.name not in NOT_IMPORTED
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_examples_are_found():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(
        len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name), name)
    )
    assert examples >= 30
