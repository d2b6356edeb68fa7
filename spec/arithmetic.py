"""Floating-point formats, and how an implementation declares that it computes."""

from dataclasses import dataclass, fields
from typing import Any

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: p significant bits (the hidden one included), exponents e_min … e_max.

    tf32 is an operand format of float32 hardware; its numbers are stored as float32.
    """

    name: str
    p: int
    e_min: int
    e_max: int

    @property
    def u(self) -> float:
        """The unit roundoff 2⁻ᵖ: the relative error of rounding to nearest is at most u."""
        return 2.0**-self.p

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.e_min

    @property
    def tiny(self) -> float:
        """The spacing of the subnormal numbers."""
        return 2.0 ** (self.e_min - self.p + 1)

    @property
    def largest(self) -> float:
        return (2.0 - 2.0 ** (1 - self.p)) * 2.0**self.e_max

    @property
    def dtype(self) -> np.dtype:
        """The NumPy dtype whose numbers are this format's (bfloat16: ml_dtypes'); tf32 has none of its own."""
        return DTYPES[self.name]


FORMATS = {
    f.name: f
    for f in (
        Format("bfloat16", 8, -126, 127),
        Format("float16", 11, -14, 15),
        Format("tf32", 11, -126, 127),
        Format("float32", 24, -126, 127),
        Format("float64", 53, -1022, 1023),
    )
}
DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")} | {
    "bfloat16": np.dtype(ml_dtypes.bfloat16)
}


def format_of(what: Any) -> Format:
    """The Format of a name, a NumPy dtype or anything with a dtype's name; raises ValueError that lists the known."""
    if isinstance(what, Format):
        return what
    name = (
        what if isinstance(what, str) else getattr(what, "name", None) or getattr(what, "__name__", None) or str(what)
    )
    name = name.removeprefix("torch.")
    if name not in FORMATS:
        raise ValueError(f"unknown format {what!r}; known: {', '.join(FORMATS)}")
    return FORMATS[name]


@dataclass(frozen=True)
class Arithmetic:
    """How an implementation computes: the declaration from which tolerances are derived.

    storage         format of the arrays that go in and come out
    intermediates   format to which every computed value is rounded (default: float32 for the 16-bit formats, else
                    the storage format)
    accumulator     format in which sums and products are accumulated (default: the intermediates', at least float32)
    sums            format to which a finished sum, of a matrix product too, is rounded (default: the intermediates')
    operands        format to which the operands of products are rounded first (default: the intermediates')
    function_ulps   bound on the error of exp, log and tanh, in units in the last place of the intermediates
    rounding        of the accumulator's additions: "nearest" or "truncate"
    flush           whether subnormal numbers are flushed to zero (default: only where bfloat16 is stored or multiplied:
                    processors' products of it, x86's VDPBF16PS and TDPBF16PS, flush what they read and what they give)

    Formats are given by name or as a Format. Raises ValueError that names the field and what it got.
    """

    storage: Any
    intermediates: Any = None
    accumulator: Any = None
    sums: Any = None
    operands: Any = None
    function_ulps: float = 2.0
    rounding: str = "nearest"
    flush: bool | None = None

    def __post_init__(self) -> None:
        storage = format_of(self.storage)
        wide = storage if storage.p >= 24 else FORMATS["float32"]
        intermediates = format_of(self.intermediates) if self.intermediates else wide
        accumulator = format_of(self.accumulator) if self.accumulator else max(wide, intermediates, key=lambda f: f.p)
        operands = format_of(self.operands) if self.operands else intermediates
        for name, value in (
            ("storage", storage),
            ("intermediates", intermediates),
            ("accumulator", accumulator),
            ("sums", format_of(self.sums) if self.sums else intermediates),
            ("operands", operands),
        ):
            object.__setattr__(self, name, value)
        if self.flush is None:
            object.__setattr__(self, "flush", "bfloat16" in (storage.name, operands.name))
        if not self.function_ulps >= 0:
            raise ValueError(f"Arithmetic: function_ulps must be at least 0, got {self.function_ulps!r}")
        if self.rounding not in ("nearest", "truncate"):
            raise ValueError(f'Arithmetic: rounding must be "nearest" or "truncate", got {self.rounding!r}')

    @property
    def blur(self) -> float:
        """A relative error that is nobody's rounding: 1 %, or 32 units of the coarsest format on the way."""
        return max(0.01, 32 * max(f.u for f in (self.intermediates, self.accumulator, self.sums, self.operands)))

    def __str__(self) -> str:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return ", ".join(f"{name} {getattr(value, 'name', value)}" for name, value in values)


def round_to(values: np.ndarray, fmt: Format) -> np.ndarray:
    """float64 values rounded to the nearest number of the format, ties to even, overflow to ±inf; as float64."""
    if fmt.name == "float64":
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = np.maximum(np.frexp(values)[1], fmt.e_min + 1)
        step = np.ldexp(1.0, exponent - fmt.p)
        rounded = np.rint(values / step) * step
    return np.where(
        np.isfinite(values), np.where(np.abs(rounded) > fmt.largest, np.copysign(np.inf, values), rounded), values
    )
