"""Calls: what an implementation answers to one, and to several in turn."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np

from ..impls import Backend
from ..spec import Arithmetic, Operation
from ..spec.certified import Undecided
from .cases import Case, Drawn
from .judge import Expectation, Judgement, judge_all, sensitivity
from .latest import Latest
from .oracle import expect, trivial_answers

TURNS = 2 * ("A, in place", "B, in place", "B", "C", "A")


@dataclass(frozen=True)
class Call:
    """A call of an operation, or of its gradient, in a backend's arithmetic."""

    backend: Backend
    operation: Operation
    arithmetic: Arithmetic
    of_gradient: bool

    @classmethod
    def of(cls, backend: Backend, dtype: str, operation: Operation, of_gradient: bool) -> "Call":
        return cls(backend, operation, backend.arithmetic(operation.name, dtype, gradient=of_gradient), of_gradient)

    @classmethod
    def each(cls, backend: Backend, dtype: str, operation: Operation) -> list["Call"]:
        """Of the operation and, where the backend has one, of its gradient."""
        directions = (False, True) if backend.gradient(operation.name) else (False,)
        return [cls.of(backend, dtype, operation, of_gradient) for of_gradient in directions]

    def __call__(self, drawn: Drawn) -> tuple[Any, ...]:
        """What the backend answers."""
        name = self.operation.name
        if self.of_gradient:
            return self.backend.backward(name, drawn.arrays, drawn.cotangents, drawn.parameters)
        return self.backend.forward(name, drawn.arrays, drawn.parameters)

    @property
    def function(self) -> Callable[..., Any]:
        return self.operation.vjp if self.of_gradient else self.operation.function

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        return ["d" + name for name in self.operation.arrays] if self.of_gradient else list(self.operation.outputs)

    def arguments(self, drawn: Drawn) -> tuple[np.ndarray, ...]:
        return drawn.arrays + drawn.cotangents if self.of_gradient else drawn.arrays

    def expect(self, case: Case, drawn: Drawn, certified: bool = True) -> list[Expectation]:
        """The right answers, as oracle.expect gives them."""
        return expect(
            self.function, self.arguments(drawn), drawn.parameters, self.arithmetic, self.names, case.seed, certified
        )


def judge_call(backend: Backend, dtype: str, case: Case, of_gradient: bool) -> Judgement:
    """Call twice and judge both answers: what only a second call shows (stale or reused memory) shows here.

    Raises NotImplementedError where the declaration leaves nothing to judge.
    """
    call, drawn = Call.of(backend, dtype, case.operation, of_gradient), case.draw(dtype)
    if case.values == "faint" and call.arithmetic.flush:  # zeros would pass
        raise NotImplementedError("numbers about the smallest normal one, which the declared arithmetic takes for 0")
    try:
        expectations, trivial = _expected(call, case, drawn)
    except Undecided as kink:
        return Judgement("inconclusive", reason=str(kink))
    arrays = call.arguments(drawn)
    inputs = {**dict(zip([*case.operation.arrays, *case.operation.outputs], arrays, strict=False)), **_masks(drawn)}
    before = {name: a.tobytes() for name, a in inputs.items()}
    first = call(drawn)
    copies = [np.array(a) for a in first]
    judgement = judge_all(expectations, copies if _all_arrays(first) else first, trivial)
    if judgement.failed:
        return judgement
    for name, a in inputs.items():
        if a.tobytes() != before[name]:
            return Judgement("fail", np.inf, f"input {name} was modified")
    for a in first:
        _spoil(a, arrays)
    spoilt = [np.array(a) for a in first]
    second = call(drawn)
    for name, a, copy in zip(call.names, first, spoilt, strict=True):
        if a.tobytes() != copy.tobytes():
            return Judgement("fail", np.inf, "a second call changed what the first had returned", name)
    if all(a.tobytes() == copy.tobytes() for a, copy in zip(second, copies, strict=True)):
        return judgement
    again = judge_all(expectations, second, trivial)
    if again.failed:
        return replace(again, reason=f"second call with the same inputs: {again.reason}")
    return judgement


def stateless(backend: Backend, dtype: str, case: Case) -> Judgement:
    """An answer depends on the arguments of its call alone, and no other call changes it.

    A and B, which are alike but for their numbers, take turns: each in arrays of its own, and both in the same arrays,
    whose numbers change in place; and, between them, C, of other parameters. So is found what remembers an argument by its
    address or its shape, what returns the same memory more than once, and a workspace whose key lacks a parameter.
    """
    cases = {"A": case, "B": replace(case, seed=case.seed ^ 1), "C": _sibling(case, backend.parameters(case.operation))}
    shared, drawn = case.draw(dtype), {which: one.draw(dtype) for which, one in cases.items()}
    inputs = shared.arrays + shared.cotangents
    calls = Call.each(backend, dtype, case.operation)
    try:
        expected = {which: [call.expect(one, drawn[which]) for call in calls] for which, one in cases.items()}
    except Undecided as kink:
        return Judgement("inconclusive", reason=str(kink))
    answers: list[tuple[str, list[np.ndarray], list[np.ndarray]]] = []
    worst = 0.0
    for number, turn in enumerate(TURNS, 1):
        which, in_place = turn[0], turn.endswith("in place")
        if in_place:
            _overwrite(shared, drawn[which])
        for call, expectations in zip(calls, expected[which], strict=True):
            what = f"{'gradient' if call.of_gradient else 'forward'} of turn {number} ({turn})"
            answer = call(shared if in_place else drawn[which])
            judgement = judge_all(expectations, answer, ((), ""))
            if judgement.failed:
                return replace(judgement, reason=f"{what}: {judgement.reason}")
            worst = max(worst, judgement.worst)
            own = [a for a in answer if not any(np.shares_memory(a, b) for b in inputs)]
            answers.append((what, own, [np.array(a) for a in own]))
    for what, own, copies in answers:
        if any(a.tobytes() != b.tobytes() for a, b in zip(own, copies, strict=True)):
            return Judgement("fail", np.inf, f"{what}: a later call changed what this one had returned")
    return Judgement("pass", worst)


def _sibling(case: Case, may: Collection[str]) -> Case:
    """A case whose workspace may look like this one's: of an image as large as this one is with its padding, which it has
    none of; without the mask, or with one; with another activation."""
    sizes, parameters = dict(case.sizes), dict(case.parameters)
    if "padding" in parameters:
        for axis, padding in zip("HW", parameters.pop("padding"), strict=True):
            sizes[axis] += 2 * padding
    if "activation" in parameters:
        # the two that every library's recurrent layer has
        parameters["activation"] = "relu" if parameters["activation"] == "tanh" else "tanh"
    mask = case.mask
    if "mask" in may:
        mask = "random" if case.mask == "none" else "none"
    return replace(case, sizes=sizes, parameters=parameters, mask=mask, seed=case.seed ^ 2)


def _overwrite(target: Drawn, source: Drawn) -> None:
    olds, news = ((*one.arrays, *one.cotangents, *_masks(one).values()) for one in (target, source))
    for old, new in zip(olds, news, strict=True):
        old[...] = new


_latest: Latest[tuple[list[Expectation], tuple[tuple[str, ...], str]]] = Latest(1 << 29)
"""What was expected of the latest examples, room for those of a cell."""


def _expected(call: Call, case: Case, drawn: Drawn) -> tuple[list[Expectation], tuple[tuple[str, ...], str]]:
    """The right answers, and which trivially wrong ones they tell from them."""
    text, arrays = str(case), call.arguments(drawn)
    key = text, call.function, arrays[0].dtype, call.arithmetic
    if known := _latest.get(key):
        return known
    expectations = call.expect(case, drawn)
    truths = [e.truth.high for e in expectations]
    ignore = np.random.default_rng(crc32(text.encode())).permutation(len(arrays))[:2]
    trivial = trivial_answers(
        case.operation, call.function, arrays, drawn.parameters, truths, call.arithmetic.blur, ignore
    )
    told = sensitivity(expectations, trivial)
    return _latest.keep(key, (expectations, told), sum(e.nbytes for e in expectations))


def _spoil(answer: Any, arrays: Sequence[np.ndarray]) -> None:
    """NaN all over what a call returned, unless it is the inputs' memory, or nobody's to write: what a second call
    reuses of it, to read or to write, shows."""
    if (
        isinstance(answer, np.ndarray)
        and answer.flags.writeable
        and not any(np.shares_memory(answer, a) for a in arrays)
    ):
        answer[...] = np.nan


def _all_arrays(answers: Sequence[Any]) -> bool:
    return all(isinstance(a, np.ndarray | np.generic) for a in answers)


def _masks(drawn: Drawn) -> dict[str, np.ndarray]:
    return {k: v for k, v in drawn.parameters.items() if isinstance(v, np.ndarray)}
