"""Traits: what an implementation is like. They are reported and never judged. A trait is a row of TRAITS.

A trait is measured on a few cases, the same in every run, and the least of its values is reported.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..impls import Backend
from ..spec import FORMATS, Arithmetic, Format, Operation
from ..spec.certified import certify
from ..spec.simulated import Simulation
from .calls import Call
from .cases import Case
from .identities import batch_letter, part_of
from .judge import Expectation
from .layouts import plain

CASES = {
    "dense": ("N=17 I=65 O=33 activation=tanh", "N=33 I=127 O=8"),
    "mse": ("N=33 O=31", "N=5 O=129"),
    "softmax": ("N=17 M=65", "N=7 M=129"),
    "conv2d": (
        "N=3 H=9 W=9 C=5 kH=3 kW=3 O=8 stride=2x1 padding=1x1",
        "N=2 H=7 W=8 C=16 kH=2 kW=3 O=5 dilation=1x2",
    ),
    "maxpool2d": ("N=3 H=9 W=9 C=5 window=3x2 stride=2x1", "N=2 H=8 W=7 C=9 window=2x2"),
    "rnn": ("T=5 N=5 I=9 H=17 O=9", "T=3 N=4 I=31 H=16 O=8 activation=relu"),
    "lstm": ("T=5 N=5 I=9 H=17", "T=3 N=4 I=31 H=16"),
    "attention": ("B=2 H=2 M=17 S=33 D=16 E=9 mask=random:B:H", "B=3 H=1 M=16 S=16 D=31 E=16 causal=True"),
    "multihead_attention": ("B=2 M=9 S=17 F=16 h=2 d_k=8 d_v=8", "B=3 M=8 S=8 F=9 h=2 d_k=5 d_v=7 causal=True"),
}
FINEST = FORMATS["float64"].p  # the arithmetic in which the unperturbed replicate is evaluated


@dataclass(frozen=True)
class Trait:
    """measure(backend, dtype, case) → what the case shows, of which the least counts, and how that is put into words."""

    name: str
    measure: Callable[[Backend, str, Case], Any]
    words: Callable[[Any], str]
    needs_gradient: bool = False
    applies: Callable[[Operation], bool] = lambda operation: True


def cases(op: Operation, may: tuple[str, ...]) -> Iterator[Case]:
    """Sizes that no block divides, and such as one does; of the parameters that an implementation takes."""
    for seed, words in enumerate(CASES[op.name]):
        case = Case.parse(op, f"{words} seed={seed}")
        parameters = {k: v for k, v in case.parameters.items() if k in may}
        yield replace(case, parameters=parameters, mask=case.mask if "mask" in may else "none")


def repeatable(backend: Backend, dtype: str, case: Case, gradient: bool = False) -> bool:
    """Whether three calls with the same arrays return the same bits."""
    call, drawn = Call.of(backend, dtype, case.operation, gradient), case.draw(dtype)
    first, *others = (_bits(call(drawn)) for _ in range(3))
    return all(other == first for other in others)


def batch_invariant(backend: Backend, dtype: str, case: Case) -> bool:
    """Whether an element of the batch, alone, has the bits that it has in the batch: the first, the last, one between."""
    op, letter, drawn = case.operation, batch_letter(case.operation), case.draw(dtype)
    outputs = backend.forward(op.name, drawn.arrays, drawn.parameters)
    size = case.sizes[letter]
    for n in sorted({0, size // 2, size - 1}):
        arrays, parameters = part_of(op, drawn.arrays, drawn.parameters, slice(n, n + 1))
        alone = backend.forward(op.name, tuple(plain(a) for a in arrays), parameters)
        axes = (letters.split().index(letter) for letters in op.outputs.values())
        if _bits(alone) != _bits(np.take(y, [n], axis) for y, axis in zip(outputs, axes, strict=True)):
            return False
    return True


def effective_bits(backend: Backend, dtype: str, case: Case, gradient: bool = False) -> tuple[int, bool]:
    """The finest claim that still passes: the largest p for which the implementation is not refused as one whose every
    format on the way (of intermediates, sums, accumulator and operands) has p bits; 0 where no claim passes.

    And whether p is but a bound: n results stored in s bits show no more than s + log₂ n, because a finer error moves
    none of them to another number; nor do the replicates, evaluated in float64, show more than 53.
    """
    call, drawn = Call.of(backend, dtype, case.operation, gradient), case.draw(dtype)
    declared, arrays, answers = call.arithmetic, call.arguments(drawn), call(drawn)
    truths = certify(call.function, arrays, drawn.parameters)
    elements = sum(max(1, math.prod(truth.shape)) for truth in truths)

    def verdicts(p: int) -> set[str]:
        simulation = Simulation(_with_bits(declared, p), seed=case.seed)
        populations = simulation.evaluate(call.function, arrays, drawn.parameters)
        rows = zip(call.names, truths, populations, answers, strict=True)
        return {Expectation(name, truth, y, 4 * elements).judge(a).verdict for name, truth, y, a in rows}

    bound = min(FINEST, declared.storage.p + math.ceil(math.log2(elements)))
    if "fail" not in verdicts(bound):
        return bound, True
    spared, refused = 0, bound
    while refused - spared > 1:
        middle = (spared + refused) // 2
        spared, refused = (spared, middle) if "fail" in verdicts(middle) else (middle, refused)
    return (spared if spared and "inconclusive" not in verdicts(spared) else 0), False


def _with_bits(declared: Arithmetic, p: int) -> Arithmetic:
    wide = max(declared.storage, FORMATS["float32"], key=lambda fmt: fmt.e_max)
    fmt = Format(f"{p} bits", p, wide.e_min, wide.e_max)
    ulps = Arithmetic.function_ulps  # of p bits; what is declared is in units of another format
    return replace(declared, intermediates=fmt, accumulator=fmt, sums=fmt, operands=fmt, function_ulps=ulps)


def _bits(arrays) -> list[bytes]:
    return [np.asarray(a).tobytes() for a in arrays]


def _same(same: bool) -> str:
    return "yes" if same else "no"


def _at_least(bits: tuple[int, bool]) -> str:
    p, is_bound = bits
    return f"≥{p}" if is_bound else str(p)


TRAITS = {
    f"trait:{t.name}": t
    for t in (
        Trait("repeatable", repeatable, _same),
        Trait("gradient_repeatable", partial(repeatable, gradient=True), _same, needs_gradient=True),
        Trait("batch_invariant", batch_invariant, _same, applies=lambda op: op.name != "mse"),  # whose L has no batch
        Trait("effective_bits", effective_bits, _at_least),
        Trait("gradient_effective_bits", partial(effective_bits, gradient=True), _at_least, needs_gradient=True),
    )
}
