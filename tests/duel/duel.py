"""The duel's one command: every subject by every criterion and by opspec, over the cores, from one seed."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis.errors import HypothesisException
from rich.console import Console

from ...impls import load
from ...spec import OPERATIONS
from ..conformance import Cell, Mismatch, Result, Runner, Tally
from ..laws import LAWS
from ..mutants import MUTANTS
from ..parallel import in_parallel
from ..planted import Planted
from ..plugin import DEFAULT_PROFILE
from ..plugin import PROFILES as EXAMPLES_OF
from ..properties import PROPERTIES
from ..threads import one_thread
from ..variants import REFUSED, VARIANTS
from . import page
from .criteria import CRITERIA, assert_close
from .inputs import KINDS, Example, Subject, examples

EXAMPLES = 60  # about half the default profile's, so that it takes ten minutes on two cores
SUITE, SAME_INPUTS = "opspec, whole suite", "opspec, the same inputs"
DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True)
class Verdict:
    """Of one criterion on one subject: "refused", "accepted" or "not applicable", after so many examples and seconds."""

    criterion: str
    kind: str
    verdict: str
    examples: int
    seconds: float


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m opspec.tests.duel", description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="for every criterion (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where duel.md and duel.png go (default: %(default)s)")
    options = parser.parse_args(arguments)
    subjects = [("mutant", n) for n in range(len(MUTANTS))] + [("variant", n) for n in range(len(VARIANTS))]
    tasks = [(*subject, options.examples, options.seed) for subject in subjects]
    done = in_parallel(judge_one, tasks, what="duel", total=len(tasks), workers=options.workers)
    verdicts = {(what, n): rows for (what, n, *_), rows in done}
    results = [(what, planted(what, n), verdicts[what, n]) for what, n in subjects]
    console = Console()
    console.width = max(console.width, 150)
    page.show(console, results)
    page.write(options.docs, results, options.examples, options.seed)
    return 0


def planted(what: str, n: int) -> Planted:
    return (MUTANTS if what == "mutant" else VARIANTS)[n]


def judge_one(what: str, n: int, number: int, seed: int) -> list[Verdict]:
    """By every criterion on its inputs, until it refuses; by opspec on the same; and by the whole suite."""
    one_thread()
    assert_close(np.zeros(1), np.zeros(1))  # its first call loads what nobody's seconds should hold
    plant = planted(what, n)
    verdicts = []
    for kind in KINDS:
        subject = Subject(plant)
        given = examples(subject, kind, number, seed)
        for criterion in CRITERIA:
            if kind in criterion.kinds:
                verdicts.append(by_criterion(criterion.name, criterion.judge, kind, subject, given))
        if kind in ("drawn", "normal"):
            verdicts.append(by_opspec(plant, kind, given))
    verdicts.append(by_suite(plant, seed))
    return verdicts


def by_criterion(name: str, judge, kind: str, subject: Subject, given: list[Example]) -> Verdict:
    judged, seconds = 0, 0.0
    for example in given:
        begin = time.perf_counter()
        known = id(example) in subject.asked
        accepted = judge(subject, example)
        seconds += time.perf_counter() - begin
        if accepted is None:
            continue
        judged += 1
        if known and not name.startswith("gradcheck"):
            seconds += subject.answer(example)[1]
        if not accepted:
            return Verdict(name, kind, "refused", judged, seconds)
    return Verdict(name, kind, "accepted" if judged else "not applicable", judged, seconds)


def by_opspec(plant: Planted, kind: str, given: list[Example]) -> Verdict:
    """By the property forward or gradient, its aggregates over the examples among it."""
    begin = time.perf_counter()
    backend = plant.make()
    cell = Cell(backend, given[0].operation, plant.dtype, plant.direction)
    result = Result(backend.name, plant.operation, plant.dtype, plant.direction)
    tally = Tally(cell, result, "")
    judged = 0
    for example in given:
        assert example.case is not None
        judged += 1
        try:
            tally.judge(example.case)
        except Mismatch:
            break
        except HypothesisException:  # a case that the property does not take
            judged -= 1
    tally.conclude()
    verdict = "refused" if result.verdict in REFUSED else "accepted"
    return Verdict(SAME_INPUTS, kind, verdict, judged, time.perf_counter() - begin)


def by_suite(plant: Planted, seed: int) -> Verdict:
    """By all properties, on the inputs that each has by default, until one refuses: that named by the plant goes first."""
    begin, judged = time.perf_counter(), 0
    for name in properties(plant):
        cell = plant.cell(name)
        result = Runner(seed, examples=EXAMPLES_OF[DEFAULT_PROFILE], shrink=False).run(cell)
        judged += result.examples + result.inconclusive
        if result.verdict in REFUSED:
            return Verdict(SUITE, "its own", "refused", judged, time.perf_counter() - begin)
    return Verdict(SUITE, "its own", "accepted", judged, time.perf_counter() - begin)


def properties(plant: Planted) -> list[str]:
    """Those that apply; where the plant's dtype is none of its base's, only those of the function that was replaced."""
    op = OPERATIONS[plant.operation]
    names = [name for name, row in PROPERTIES.items() if row.applies(op)]
    if plant.dtype not in load(plant.base).dtypes(plant.operation):
        gradient = plant.direction == "gradient"
        of_it = {f"law:{law.name}" for law in LAWS.values() if law.gradient == gradient}
        of_it |= {"gradient"} if gradient else {"forward", "special"}
        names = [name for name in names if name in of_it]
    return sorted(names, key=lambda name: name != plant.property)
