"""Implementations to try the suite on: a correct backend with one function replaced."""

import types
from collections.abc import Callable
from typing import Any

from ..impls import Backend, load
from ..spec import OPERATIONS, Arithmetic
from .conformance import Cell, Result, Runner


def backend(
    dtypes: tuple[str, ...] = ("float32",), arithmetic: Callable[..., Arithmetic] | None = None, **functions: Any
) -> Backend:
    """The NumPy backend's functions with some replaced, as a plug-in of the user's."""
    correct = load("numpy").module
    module = types.ModuleType("planted")
    for name in OPERATIONS:
        setattr(module, name, getattr(correct, name))
        setattr(module, name + "_vjp", getattr(correct, name + "_vjp"))
    for name, function in {"dtypes": dtypes, **functions}.items():
        setattr(module, name, function)
    if arithmetic:
        module.arithmetic = arithmetic  # type: ignore[attr-defined]
    return Backend(module, "planted.py")


def judge(
    backend: Backend, operation: str, property_: str, seed: int, dtype: str = "float32", examples: int | None = None
) -> Result:
    return Runner(seed, examples=examples).run(Cell(backend, OPERATIONS[operation], dtype, property_))
