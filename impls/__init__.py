"""Backends: how each library performs the operations, and how a backend is found and called.

A backend is any importable module or .py file that defines functions named after operations. Optional attributes:
from_numpy, to_numpy, judging, vjp, dtypes, arithmetic, NAME, NOTE, SHARE, KNOWN_DEFECTS (see the README).
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..spec import DTYPES, OPERATIONS, Arithmetic, Operation, format_of

SHIPPED = ("numpy", "torch", "triton")
DEFAULT_DTYPES = ("float32", "float64")


class UnknownBackend(ValueError):
    """No such backend: the message names the shipped ones."""


@dataclass(frozen=True)
class Backend:
    """A backend module, called in NumPy arrays. `given` is how the user named it."""

    module: ModuleType
    given: str

    @property
    def name(self) -> str:
        return getattr(self.module, "NAME", self.module.__name__.rpartition(".")[2])

    @property
    def shipped(self) -> bool:
        return self.given in SHIPPED

    @property
    def note(self) -> str:
        """What a run's header says of the backend, beside its operations."""
        return getattr(self.module, "NOTE", "")

    @property
    def share(self) -> float:
        """Of the profile's examples, how many the backend is given: fewer where each takes long."""
        return getattr(self.module, "SHARE", 1.0)

    @property
    def known_defects(self) -> dict[tuple[str, ...], str]:
        """By (operation, property), or (operation, property, dtype): the upstream issue and one sentence."""
        return getattr(self.module, "KNOWN_DEFECTS", {})

    @cached_property
    def operations(self) -> tuple[str, ...]:
        return tuple(name for name in OPERATIONS if callable(getattr(self.module, name, None)))

    def function(self, operation: str) -> Callable[..., Any] | None:
        return getattr(self.module, operation, None)

    def gradient(self, operation: str) -> Callable[..., Any] | None:
        """Called as (arrays, cotangents, parameters); the operation's own vjp goes before the module's general one."""
        if own := getattr(self.module, operation + "_vjp", None):
            return lambda arrays, cotangents, parameters: own(*arrays, *cotangents, **parameters)
        if (general := getattr(self.module, "vjp", None)) and (function := self.function(operation)):
            return lambda arrays, cotangents, parameters: general(function, arrays, cotangents, **parameters)
        return None

    def dtypes(self, operation: str) -> tuple[str, ...]:
        """Names of the dtypes in which the backend claims the operation; raises ValueError for one that is none."""
        dtypes = getattr(self.module, "dtypes", DEFAULT_DTYPES)
        claimed = dtypes(operation) if callable(dtypes) else dtypes
        if isinstance(claimed, str):
            raise ValueError(f"dtypes: expected a tuple of names, got {claimed!r}")
        return tuple(_dtype(d) for d in claimed)

    def arithmetic(self, operation: str, dtype: str, gradient: bool = True) -> Arithmetic:
        """What the module declares, or the default; gradient=False asks for the values alone, where it distinguishes."""
        declared = getattr(self.module, "arithmetic", None)
        distinguishes = {"gradient": gradient} if declared and _takes(declared, "gradient") else {}
        arithmetic = declared(operation, dtype, **distinguishes) if declared else Arithmetic(dtype)
        if not isinstance(arithmetic, Arithmetic):
            raise TypeError(
                f"{self.name}: arithmetic({operation!r}, {dtype!r}) must return an Arithmetic, got {arithmetic!r}"
            )
        return arithmetic

    def parameters(self, operation: Operation) -> tuple[str, ...]:
        """The operation's parameters that the backend's function, and its gradient, take."""
        functions = [
            f for f in (self.function(operation.name), getattr(self.module, operation.name + "_vjp", None)) if f
        ]
        return tuple(p for p in operation.parameters if all(_takes(f, p) for f in functions))

    def from_numpy(self, array: np.ndarray) -> Any:
        convert = getattr(self.module, "from_numpy", None)
        return convert(array) if convert else array

    def to_numpy(self, array: Any) -> Any:
        convert = getattr(self.module, "to_numpy", None)
        return convert(array) if convert else array

    def forward(self, operation: str, arrays: tuple[np.ndarray, ...], parameters: dict[str, Any]) -> tuple[Any, ...]:
        """The outputs as NumPy arrays, always a tuple."""
        function = self.function(operation)
        if function is None:
            raise NotImplementedError(f"{self.name} has no {operation}")
        with self._judging():
            return self._out(function(*map(self.from_numpy, arrays), **self.convert(parameters)))

    def backward(
        self,
        operation: str,
        arrays: tuple[np.ndarray, ...],
        cotangents: tuple[np.ndarray, ...],
        parameters: dict[str, Any],
    ) -> tuple[Any, ...]:
        """One gradient per array, as NumPy arrays."""
        gradient = self.gradient(operation)
        if gradient is None:
            raise NotImplementedError(f"{self.name} has neither {operation}_vjp nor vjp")
        with self._judging():
            converted = tuple(map(self.from_numpy, arrays)), tuple(map(self.from_numpy, cotangents))
            return self._out(gradient(*converted, self.convert(parameters)))

    def _judging(self) -> AbstractContextManager[None]:
        """The module's own context manager around every judged call, where it has one: to poison memory, say."""
        return getattr(self.module, "judging", nullcontext)()

    def convert(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments, with what is an array in the backend's own."""
        return {k: self.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in parameters.items()}

    def _out(self, result: Any) -> tuple[Any, ...]:
        return tuple(self.to_numpy(a) for a in (result if isinstance(result, tuple | list) else (result,)))


def load(name: str) -> Backend:
    """The backend of a shipped name, a dotted module or a path to a .py file.

    Raises UnknownBackend where there is none; an error while it is imported is raised as it is.
    """
    if name in SHIPPED:
        return Backend(importlib.import_module(f".{name}", __name__), name)
    if name.endswith(".py"):
        return Backend(_load_file(Path(name)), name)
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UnknownBackend(
            f"unknown backend {name!r}: neither a shipped one ({', '.join(SHIPPED)}), nor an importable module, "
            "nor a path to a .py file"
        )
    return Backend(importlib.import_module(name), name)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownBackend(f"unknown backend {str(path)!r}: no such file; shipped backends: {', '.join(SHIPPED)}")
    name = "opspec_backend_" + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.NAME = path.stem  # type: ignore[attr-defined]
    sys.modules[name] = module
    neighbours = str(path.resolve().parent)
    sys.path.append(neighbours)  # a backend may import its neighbours, as a script may
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(neighbours)
    return module


def _dtype(what: Any) -> str:
    """Its name; raises ValueError where arrays have no such dtype."""
    name = str(what)
    with suppress(ValueError):
        name = format_of(what).name
    if name not in DTYPES:
        raise ValueError(f"dtypes: {what!r} is no dtype of arrays; known: {', '.join(DTYPES)}")
    return name


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled functions have none; those are called with everything
        return True
    kinds = signature.parameters.values()
    return parameter in signature.parameters or any(p.kind is p.VAR_KEYWORD for p in kinds)
