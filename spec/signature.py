"""What an operation takes and returns, and the one check that a call is well formed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Operation:
    """One operation of the catalogue.

    arrays and outputs map names to shapes, written as space-separated letters ("N I"); a letter stands for one
    size throughout a call, "()" for a scalar, and "H+I" for a sum of sizes.

    defaults are the parameters with the values that make the operation the equation as written; a parameter without
    a default (`window`) is listed in `required`.

    derive(sizes, **parameters) raises ValueError where parameters or sizes are not allowed and returns the sizes of
    the outputs that the arrays do not have (oH, oW).

    vjp(*arrays, *cotangents, **parameters) returns a gradient for each array. Of every operation, with J the derivative of
    its function, u a direction and v the cotangents: finite_difference  ⟨v, J u⟩ = ⟨vjp(v), u⟩.

    polynomial(**parameters) tells whether rationals suffice to evaluate the operation (products, sums, maxima).
    """

    name: str
    function: Callable[..., Any]
    vjp: Callable[..., tuple[Any, ...]]
    section: str
    equation: str
    arrays: Mapping[str, str]
    outputs: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    derive: Callable[..., dict[str, int]] = lambda sizes, **parameters: {}
    polynomial: Callable[..., bool] = lambda **parameters: False
    recurrent: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.required + tuple(self.defaults)

    def check(self, arrays: tuple[Any, ...], cotangents: tuple[Any, ...] = (), /, **parameters: Any) -> dict[str, int]:
        """Sizes of a well-formed call, by letter; cotangents, where given, must have the outputs' shapes.

        Anything with a `.shape` is an array here, of whatever library.

        Raises ValueError that names the argument, what came and what was expected.
        """
        if len(arrays) != len(self.arrays):
            raise ValueError(
                f"{self.name}: takes {len(self.arrays)} arrays ({', '.join(self.arrays)}), got {len(arrays)}"
            )
        for name in self.required:
            if name not in parameters:
                raise ValueError(f"{self.name}: parameter {name} is required")
        for name in parameters:
            if name not in self.parameters:
                raise ValueError(
                    f"{self.name}: unknown parameter {name}; known: {', '.join(self.parameters) or 'none'}"
                )
        sizes: dict[str, int] = {}
        for (name, letters), array in zip(self.arrays.items(), arrays, strict=True):
            _match(f"{self.name}: {name}", letters, array, sizes)
        parameters = {**self.defaults, **parameters}
        sizes |= self.derive(sizes, **parameters)
        if cotangents:
            if len(cotangents) != len(self.outputs):
                raise ValueError(f"{self.name}: takes {len(self.outputs)} cotangents, got {len(cotangents)}")
            for (name, letters), array in zip(self.outputs.items(), cotangents, strict=True):
                _match(f"{self.name}: cotangent of {name}", letters, array, sizes)
        return sizes


def _match(what: str, letters: str, array: Any, sizes: dict[str, int]) -> None:
    """Bind the letters of one shape to sizes, or raise."""
    if not hasattr(array, "shape"):
        raise ValueError(f"{what} must be an array of shape [{letters}], got {type(array).__name__}")
    shape = tuple(int(n) for n in array.shape)
    axes = letters.replace("()", "").split()
    if len(shape) != len(axes):
        raise ValueError(f"{what} must have {len(axes)} axes [{' '.join(axes)}], got shape {shape}")
    for axis, size in zip(axes, shape, strict=True):
        terms = [sizes.get(letter) for letter in axis.replace("+", "*").split("*")]
        if None in terms:
            if size < 1:
                raise ValueError(f"{what} must have no empty axis, got shape {shape}")
            sizes[axis] = size
            continue
        expected = sum(terms) if "+" in axis else _product(terms)  # type: ignore[arg-type]
        if size != expected:
            raise ValueError(f"{what} must have {axis} = {expected} in [{' '.join(axes)}], got shape {shape}")


def _product(terms: list[int]) -> int:
    product = 1
    for term in terms:
        product *= term
    return product


def pair(operation: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """A parameter of two integers, each at least `least`; raises ValueError that names it."""
    try:
        height, width = value
    except (TypeError, ValueError):
        raise ValueError(f"{operation}: {name} must be a pair of integers, got {value!r}") from None
    for size in (height, width):
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise ValueError(f"{operation}: {name} must be two integers of at least {least}, got {value!r}")
    return height, width
