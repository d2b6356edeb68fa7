"""Cells of the conformance matrix: one backend's operation in one dtype, held to one property over many examples."""

import contextlib
import shlex
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings, target
from hypothesis.errors import Flaky, HypothesisException
from hypothesis.strategies import SearchStrategy

from ..impls import Backend
from ..spec import OPERATIONS, Operation
from .calls import Call
from .cases import Case, at_most
from .directed import directed
from .judge import Judgement, Statistics
from .properties import PROPERTIES, Property, bad_input
from .traits import TRAITS, Trait
from .traits import cases as cases_of_traits

MOST_INCONCLUSIVE = 0.5  # of a cell's examples; others are drawn in their place
MOST_INCONCLUSIVE_OF_ORDINARY = 0.1  # of those with ordinary numbers, which any useful arithmetic can judge
ENOUGH_TO_CLIMB = 500  # climbing towards the worst error takes half of a cell's examples, all near one another
ENOUGH_TO_FIND_AGAIN = 100  # draws, two fifths of which are the case that is to be shrunk
ENOUGH_TO_BE_SENSITIVE = 60  # examples, of which each argument is left out in several
VERDICTS = ("pass", "fail", "known", "inconclusive", "unsupported", "error")
BAD_INPUT = "bad_input"
EVERY_PROPERTY = (*PROPERTIES, BAD_INPUT, *TRAITS)


@dataclass(frozen=True)
class Cell:
    """One entry of the matrix, to be judged."""

    backend: Backend
    operation: Operation
    dtype: str
    property: str

    def __str__(self) -> str:
        return f"{self.backend.name}-{self.operation.name}-{self.dtype}-{self.property}"


@dataclass(frozen=True)
class BrokenBackend:
    """A backend that could not be imported: a cell of its own, and a red one."""

    name: str
    reason: str
    trace: str

    @classmethod
    def of(cls, name: str, error: Exception) -> "BrokenBackend":
        return cls(name, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    def __str__(self) -> str:
        return f"{self.name}-import"


@dataclass
class Result:
    """One entry of the matrix, judged; `asdict` gives the report's cell. A trait has a value, and is not judged."""

    impl: str
    op: str
    dtype: str
    property: str
    verdict: str = "pass"
    examples: int = 0
    inconclusive: int = 0
    worst: float = 0.0
    reason: str = ""
    counterexample: dict[str, Any] | None = None
    reproduce: str = ""
    not_exercised: tuple[str, ...] = ()
    rms: float | None = None
    bias: float | None = None
    refused: dict[str, int] = field(default_factory=dict)
    value: str = ""


class Mismatch(AssertionError):
    """An example that failed; hypothesis shrinks it."""


def cells(
    backends: Sequence[Backend | BrokenBackend], operations: list[str], dtypes: list[str], properties: list[str]
) -> Iterator[Cell | BrokenBackend]:
    """All cells by operation, dtype and property, those of the backends one after another: on the same examples, for which
    the oracle is asked once where their arithmetic is one. Empty lists choose everything."""
    yield from (backend for backend in backends if isinstance(backend, BrokenBackend))
    whole = [backend for backend in backends if isinstance(backend, Backend)]
    for name in operations or OPERATIONS:
        op = OPERATIONS[name]
        of_each = [(b, b.dtypes(name) if b.function(name) else ("-",)) for b in whole]
        for dtype in dict.fromkeys(dtype for _, own in of_each for dtype in own):
            if dtypes and dtype not in dtypes and dtype != "-":
                continue
            for p in properties or EVERY_PROPERTY:
                for backend, own in of_each:
                    if dtype in own and _applies(backend, op, dtype, p):
                        yield Cell(backend, op, dtype, p)


def _applies(backend: Backend, op: Operation, dtype: str, property_: str) -> bool:
    """A missing operation has one cell, which says so; bad input is asked of the backends that we ship."""
    if dtype == "-":
        return property_ == "forward"
    return backend.shipped if property_ == BAD_INPUT else _row(property_).applies(op)


def _row(property_: str) -> Property | Trait:
    return TRAITS[property_] if property_ in TRAITS else PROPERTIES[property_]


class Runner:
    """Judges cells, on so many examples each (default: the Hypothesis profile's): the directed cases and, half of them
    at least, drawn ones. `case`, where given, is the only one.

    shrink=False is content with the first failure, of any size; directed=False draws all examples.
    """

    def __init__(
        self,
        seed: int,
        case: str | None = None,
        examples: int | None = None,
        shrink: bool = True,
        directed: bool = True,
    ):
        self.seed = seed
        self.case = case
        self.examples = examples
        self.shrink = shrink
        self.directed = directed

    def run(self, cell: Cell | BrokenBackend) -> Result:
        """Never raises for what an implementation does: that becomes the verdict."""
        if isinstance(cell, BrokenBackend):
            reproduce = f"pytest --impl {shlex.quote(cell.name)}"
            return Result(
                cell.name, "-", "-", "import", "error", reason=f"{cell.reason}\n{cell.trace}", reproduce=reproduce
            )
        backend, op = cell.backend, cell.operation
        result = self._blank(cell)
        if backend.function(op.name) is None:
            return _unsupported(result, f"{backend.name} defines no function {op.name}")
        if cell.property == BAD_INPUT:
            self._run_bad_input(cell, result)
        elif _row(cell.property).needs_gradient and backend.gradient(op.name) is None:
            return _unsupported(result, f"{backend.name} defines neither {op.name}_vjp nor vjp")
        else:
            may = backend.parameters(op)
            result.not_exercised = tuple(p for p in op.parameters if p not in may)
            if cell.property in TRAITS:
                return self._measure(cell, result, may)
            self._run_examples([cell], [result], may)
        return _known(cell, result)

    def run_together(self, cells: Sequence[Cell]) -> list[Result]:
        """Implementations of one operation in one dtype, held to one property on the same examples.

        Where their arithmetic is one, too, the oracle is asked once, which is what most of the time goes to.
        """
        results = [self._blank(cell) for cell in cells]
        self._run_examples(cells, results, cells[0].backend.parameters(cells[0].operation))
        return [_known(cell, result) for cell, result in zip(cells, results, strict=True)]

    def crashed(self, cell: Cell, reason: str) -> Result:
        """Of a cell whose process ended."""
        result = self._blank(cell)
        result.verdict, result.reason = "error", reason
        return result

    def _blank(self, cell: Cell) -> Result:
        result = Result(cell.backend.name, cell.operation.name, cell.dtype, cell.property)
        result.reproduce = self._reproduce(cell)
        return result

    def _run_examples(self, cells: Sequence[Cell], results: Sequence[Result], may: tuple[str, ...]) -> None:
        tallies = [Tally(cell, result, self._reproduce(cell)) for cell, result in zip(cells, results, strict=True)]
        cell = cells[0]
        if self.case is not None:
            for tally in tallies:
                _holds([tally], Case.parse(cell.operation, self.case))
                tally.conclude(single=True)
            return
        row, what = PROPERTIES[cell.property], f"{cell.operation.name} {cell.dtype} {cell.property}"
        known = any(_defect(cell) is not None for cell in cells)  # then one failure is enough
        share = 1.0 if known else cell.backend.share
        shrink = self.shrink and not known
        wanted = max(1, round((self.examples or settings().max_examples) * row.share * share))
        fixed = list(row.directed(cell.operation.name, may)) if self.directed else []
        if 2 * len(fixed) > wanted:  # half of the examples are drawn at least; which ones are left out, the seed says
            chosen = np.random.default_rng(self.seed).permutation(len(fixed))[: wanted // 2]
            fixed = [fixed[n] for n in sorted(chosen)]
        for case in fixed:
            if not _holds(tallies, case):
                again = f"{what} {case}"
                if shrink and self._search(tallies, at_most(case), ENOUGH_TO_FIND_AGAIN, again, shrink=True):
                    _mark_as_flaky(tallies)
                break
        else:
            strategy = row.strategy(cell.operation, may)
            left = max(1, wanted - min(tally.result.examples for tally in tallies))
            for attempt in range(4):  # examples that prove nothing, or are not supported, are made up for
                if not self._search(tallies, strategy, left, f"{what} {attempt}", shrink):
                    break
                left = wanted - min(tally.result.examples for tally in tallies)
                if left <= 0.1 * wanted or not any(tally.unsupported or tally.inconclusive for tally in tallies):
                    break
        for tally in tallies:
            tally.conclude()

    def _search(
        self, tallies: Sequence["Tally"], strategy: SearchStrategy[Case], wanted: int, what: str, shrink: bool
    ) -> bool:
        """Whether so many drawn cases hold; else the tallies have the smallest that was found not to."""
        phases = {Phase.explicit, Phase.generate} | ({Phase.shrink} if shrink else set())
        if wanted >= ENOUGH_TO_CLIMB:
            phases.add(Phase.target)

        @seed(crc32(f"{self.seed} {what}".encode()))
        @settings(
            max_examples=wanted,
            phases=phases,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        @given(strategy)
        def examples(case: Case) -> None:
            for tally in tallies:
                tally.judge(case)
            target(min(max(tally.last for tally in tallies), 1e6))

        try:
            examples()
        except Mismatch:
            return False
        except Flaky:  # what an implementation does only now and then is a failure, too
            if not _mark_as_flaky(tallies):
                raise
            return False
        return True

    def _measure(self, cell: Cell, result: Result, may: tuple[str, ...]) -> Result:
        """The least value over the trait's cases. What an implementation raises is for other cells to judge."""
        trait = TRAITS[cell.property]
        measured: list[tuple[Any, Case]] = []
        why_not = "no case shows it"
        given = cases_of_traits(cell.operation, may) if self.case is None else [Case.parse(cell.operation, self.case)]
        for case in given:
            try:
                with _undisturbed():
                    measured.append((trait.measure(cell.backend, cell.dtype, case), case))
            except NotImplementedError as reason:
                why_not = str(reason)
            except Exception as error:
                why_not = f"{type(error).__name__}: {error}"
        if not measured:
            return _unsupported(result, why_not)
        value, case = min(measured, key=lambda pair: pair[0])
        result.examples, result.value = len(measured), trait.words(value)
        result.reason = f"the least of {len(measured)}: {case}"
        result.reproduce += f" --case {shlex.quote(str(case))}"
        return result

    def _run_bad_input(self, cell: Cell, result: Result) -> None:
        for what, judgement in bad_input(cell.backend, cell.dtype, cell.operation):
            result.examples += 1
            if judgement.failed:
                result.verdict, result.reason = "fail", f"{what}: {judgement.reason}"
                result.counterexample = {
                    "case": what,
                    "output": "",
                    "index": [],
                    "got": judgement.reason,
                    "expected": "ValueError",
                    "tolerance": None,
                }
                return

    def _reproduce(self, cell: Cell) -> str:
        words = ["pytest", "--impl", cell.backend.given, "--op", cell.operation.name, "--dtype", cell.dtype]
        return " ".join([words[0], *map(shlex.quote, words[1:]), "--property", cell.property])


class Tally:
    """What a cell's examples add up to."""

    def __init__(self, cell: Cell, result: Result, reproduce: str):
        self.cell, self.result, self.reproduce = cell, result, reproduce
        self.tried = 0
        self.last = 0.0  # the latest example's error over tolerance
        self.unsupported: Counter[str] = Counter()
        self.inconclusive: Counter[str] = Counter()
        self.ordinary = [0, 0]  # examples with ordinary numbers: tried, inconclusive
        self.refused: Counter[str] = Counter()
        self.statistics: Statistics | None = None

    def judge(self, case: Case) -> None:
        """One example; raises Mismatch where it fails, and remembers the last failure, which is the smallest."""
        self.last = 0.0
        try:
            with _undisturbed():
                judgement = PROPERTIES[self.cell.property].judge(self.cell.backend, self.cell.dtype, case)
        except HypothesisException:
            raise
        except NotImplementedError as reason:
            self.unsupported[str(reason)] += 1
            return
        except Exception as error:  # whatever a backend raises is its verdict
            self._remember(
                case, Judgement("fail", np.inf, f"{type(error).__name__}: {error}"), "error", traceback.format_exc()
            )
            raise Mismatch from error
        self.tried += 1
        self.ordinary[0] += case.values == "normal"
        if judgement.failed:
            self._remember(case, judgement, "fail")
            raise Mismatch
        self.refused.update(judgement.refused)
        if judgement.verdict == "inconclusive":
            self.inconclusive[judgement.reason] += 1
            self.ordinary[1] += case.values == "normal"
            return
        for s in judgement.statistics:
            self.statistics = s if self.statistics is None else self.statistics + s
        self.result.examples += 1
        self.result.worst = max(self.result.worst, judgement.worst)
        self.last = float(judgement.worst)

    def _remember(self, case: Case, judgement: Judgement, verdict: str, trace: str = "") -> None:
        r = self.result
        r.verdict, r.reason, r.worst = verdict, judgement.reason, judgement.worst
        r.counterexample = {
            "case": str(case),
            "output": judgement.output,
            "index": list(judgement.index),
            "got": judgement.got,
            "expected": judgement.expected,
            "tolerance": judgement.tolerance,
        }
        if trace:
            r.counterexample["traceback"] = trace
        r.reproduce = f"{self.reproduce} --case {shlex.quote(str(case))}"

    def conclude(self, single: bool = False) -> None:
        """The cell's verdict, from the aggregates too."""
        r = self.result
        r.inconclusive = sum(self.inconclusive.values())
        r.refused = dict(self.refused)
        if self.statistics is not None and self.statistics.n:
            s = self.statistics
            r.rms = float(np.sqrt(s.energy[0] / s.n))
            r.bias = float(s.lean[0] / np.sqrt(np.mean(s.lean[1:] ** 2))) if np.any(s.lean[1:]) else 0.0
        if r.verdict != "pass":
            r.examples += r.verdict == "fail"
            return
        if not self.tried:
            r.verdict = "unsupported" if self.unsupported else "inconclusive"
            r.reason = next((why for why, _ in self.unsupported.most_common(1)), "no example was judged")
        elif self._most_prove_nothing() or not r.examples:
            why, count = self.inconclusive.most_common(1)[0]
            r.verdict, r.reason = (
                "inconclusive",
                f"{r.inconclusive} of {self.tried} examples prove nothing ({self.ordinary[1]} of {self.ordinary[0]} with "
                f"ordinary numbers), {count} of them because {why}",
            )
        elif not single and (blind := self._blind()):
            r.verdict, r.reason = "inconclusive", f"no example tells a right answer from one made by {blind}"
        elif not single and self.statistics is not None and (reason := self.statistics.verdict(comparisons=4)):
            r.verdict, r.reason = "fail", f"over all examples of the cell: {reason}"
        r.not_exercised = tuple(dict.fromkeys((*r.not_exercised, *self.unsupported)))

    def _most_prove_nothing(self) -> bool:
        """Half, or a tenth of those with ordinary numbers; two standard deviations more, which chance may bring."""
        tried, inconclusive = self.ordinary
        counts = (
            (self.result.inconclusive, self.tried, MOST_INCONCLUSIVE),
            (inconclusive, tried, MOST_INCONCLUSIVE_OF_ORDINARY),
        )
        return any(k > share * n + 2 * (share * (1 - share) * n) ** 0.5 for k, n, share in counts)

    def _blind(self) -> str:
        """A trivially wrong answer that no example of a large cell has refused."""
        if self.cell.property not in ("forward", "gradient") or self.result.examples < ENOUGH_TO_BE_SENSITIVE:
            return ""
        op = self.cell.operation
        arguments = [*op.arrays, *(f"cotangent of {n}" for n in op.outputs if self.cell.property == "gradient")]
        unseen = ((n, a) for n, a in enumerate(arguments) if not self.refused[f"ignoring {a}"])
        return next((f"ignoring {a}" for n, a in unseen if self._depends_on(n)), "")

    def _depends_on(self, argument: int) -> bool:
        """Whether what is judged does, for the parameters that the implementation takes: a linear layer's gradient does
        not on b."""
        op, backend = self.cell.operation, self.cell.backend
        call = Call.of(backend, self.cell.dtype, op, self.cell.property == "gradient")
        for case in directed(op.name, backend.parameters(op)):
            drawn = case.draw("float64")
            arrays = list(call.arguments(drawn))
            with np.errstate(all="ignore"):
                answers = call.function(*arrays, **drawn.parameters)
                arrays[argument] = arrays[argument] * 0
                others = call.function(*arrays, **drawn.parameters)
            pairs = zip(answers, others, strict=True) if isinstance(answers, tuple) else [(answers, others)]
            if not all(np.array_equal(a, b) for a, b in pairs):
                return True
        return False


def _holds(tallies: Sequence["Tally"], case: Case) -> bool:
    try:
        for tally in tallies:
            tally.judge(case)
    except Mismatch:  # the tally has it
        return False
    return True


def _mark_as_flaky(tallies: Sequence["Tally"]) -> bool:
    """Whether there is a failure at all."""
    failed = [tally.result for tally in tallies if tally.result.verdict in ("fail", "error")]
    for result in failed:
        result.reason += " (the same case passed when it was repeated)"
    return bool(failed)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """What a backend warns of is no verdict."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _unsupported(result: Result, reason: str) -> Result:
    result.verdict, result.reason, result.reproduce = "unsupported", reason, ""
    return result


def _defect(cell: Cell) -> str | None:
    """What the backend declares of this cell, for all dtypes or for this one."""
    name, defects = cell.operation.name, cell.backend.known_defects
    return defects.get((name, cell.property, cell.dtype)) or defects.get((name, cell.property))


def _known(cell: Cell, result: Result) -> Result:
    """A declared defect of the library is shown as known; one that many examples no longer show must be struck off."""
    defect = _defect(cell)
    if defect is None:
        return result
    if result.verdict in ("fail", "error"):
        result.verdict, result.reason = "known", f"{defect} [{result.reason}]"
    elif result.verdict == "pass" and result.examples >= ENOUGH_TO_BE_SENSITIVE:
        result.verdict, result.reason = (
            "fail",
            f"KNOWN_DEFECTS lists a defect that no longer shows: strike it off: {defect}",
        )
    return result
