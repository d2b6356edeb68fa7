"""Implementations to try the suite on: a correct backend with one function replaced."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..impls import Backend, load
from ..spec import OPERATIONS, Arithmetic
from .conformance import Cell, Result, Runner


@dataclass(frozen=True)
class Planted:
    """A mutant (a correct implementation with one change) or a correct variant; `make` gives it as a user's plug-in.

    direction  "forward" or "gradient": which of the two functions is another than the correct backend's
    property   the property that must kill a mutant, and that a variant is judged by
    says       where the bug has been seen, or what the variant does otherwise
    """

    name: str
    operation: str
    direction: str
    property: str
    dtype: str
    says: str
    make: Callable[[], Backend]

    def __str__(self) -> str:
        return f"{self.operation}-{self.name}"

    def judge(self, seed: int, property_: str = "", examples: int | None = None) -> Result:
        """By the named property or another; as many examples as the profile has."""
        cell = Cell(self.make(), OPERATIONS[self.operation], self.dtype, property_ or self.property)
        return Runner(seed, examples=examples).run(cell)


def plant(
    function: Callable[..., Any],
    operation: str,
    direction: str = "forward",
    property_: str = "",
    dtype: str = "float32",
    arithmetic: Callable[..., Arithmetic] | None = None,
) -> Planted:
    """The function in place of the NumPy backend's; its name and docstring are the plant's."""
    replaced = operation if direction == "forward" else operation + "_vjp"
    return Planted(
        name=function.__name__,
        operation=operation,
        direction=direction,
        property=property_ or direction,
        dtype=dtype,
        says=function.__doc__ or "",
        make=lambda: backend((dtype,), arithmetic, **{replaced: function}),
    )


def planting(plants: list[Planted], operation: str) -> Callable[..., Callable[..., Any]]:
    """A decorator that plants functions into one operation, with `plant`'s arguments, and collects them."""

    def planted(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            plants.append(plant(function, operation, *args, **kwargs))
            return function

        return add

    return planted


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
