"""Implementations to try the suite on: a correct backend with one function replaced, or with one line rewritten."""

import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    base       the correct backend: "numpy" or "triton"
    """

    name: str
    operation: str
    direction: str
    property: str
    dtype: str
    says: str
    make: Callable[[], Backend]
    base: str = "numpy"

    def __str__(self) -> str:
        return f"{self.operation}-{self.name}"

    def judge(self, seed: int, property_: str = "", examples: int | None = None, shrink: bool = True) -> Result:
        """By the named property or another; as many examples as the profile has."""
        return Runner(seed, examples=examples, shrink=shrink).run(self.cell(property_))

    def cell(self, property_: str = "") -> Cell:
        return Cell(self.make(), OPERATIONS[self.operation], self.dtype, property_ or self.property)


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


def rewrite(
    name: str,
    says: str,
    operation: str,
    *changes: tuple[str, str],
    direction: str = "forward",
    property_: str = "",
    dtype: str = "float32",
    **names: Any,
) -> Planted:
    """The NumPy backend's function after each change (old, new) to the source; `names` are known in it."""
    replaced = operation if direction == "forward" else operation + "_vjp"
    return Planted(
        name=name,
        operation=operation,
        direction=direction,
        property=property_ or direction,
        dtype=dtype,
        says=says,
        make=lambda: backend((dtype,), **{replaced: getattr(rewritten(*changes, **names), replaced)}),
    )


class Planting:
    """Collects what is planted into one operation: functions by decoration, rewritten lines by `line`."""

    def __init__(self, operation: str):
        self.operation = operation
        self.plants: list[Planted] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """@mutant("gradient", dtype="float16"): the arguments are those of `plant`."""

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            self.plants.append(plant(function, self.operation, *args, **kwargs))
            return function

        return add

    def line(self, name: str, says: str, *changes: tuple[str, str], **kwargs: Any) -> None:
        """mutant.line("name", "what it is", (old, new)): the arguments are those of `rewrite`."""
        self.plants.append(rewrite(name, says, self.operation, *changes, **kwargs))


def backend(
    dtypes: tuple[str, ...] = ("float32",), arithmetic: Callable[..., Arithmetic] | None = None, **functions: Any
) -> Backend:
    """The NumPy backend's functions with some replaced, as a plug-in of the user's."""
    correct = load("numpy").module
    module = types.ModuleType("planted")
    sound = tuple(d for d in dtypes if d in correct.dtypes)
    for name in OPERATIONS:
        setattr(module, name, getattr(correct, name))
        if sound:  # else a gradient beside a function that is replaced would be in another dtype
            setattr(module, name + "_vjp", getattr(correct, name + "_vjp"))
    for name, function in functions.items():
        setattr(module, name, function)
    replaced = {name.removesuffix("_vjp") for name in functions}
    module.dtypes = lambda op: dtypes if op in replaced else sound  # type: ignore[attr-defined]
    if arithmetic:
        module.arithmetic = arithmetic  # type: ignore[attr-defined]
    return Backend(module, "planted.py")


def rewritten(*changes: tuple[str, str], **names: Any) -> types.ModuleType:
    """The NumPy backend, each change (old, new) made to its source, with `names` known in it.

    Raises ValueError where the old text is not there exactly once: then the backend has moved on, and the plant must, too.
    """
    original = load("numpy").module
    assert original.__file__
    source = Path(original.__file__).read_text()
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"impls/numpy.py has {source.count(old)} times, not once: {old!r}")
        source = source.replace(old, new)
    module = types.ModuleType("planted")
    module.__dict__.update(names, __package__=original.__package__)
    exec(compile(source, "planted", "exec"), module.__dict__)
    return module


def judge(
    backend: Backend, operation: str, property_: str, seed: int, dtype: str = "float32", examples: int | None = None
) -> Result:
    return Runner(seed, examples=examples).run(Cell(backend, OPERATIONS[operation], dtype, property_))
