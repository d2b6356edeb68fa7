"""`python -m opspec.tests.mutants`: which property kills which mutant, how soon, and how small a case shows it.

A mutant's own property is given the default profile's examples, once to the first failure, which is timed, and once more
to shrink it; every other property is given fewer. The page is written to docs/mutants.md.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...spec import OPERATIONS
from ..cases import Case
from ..parallel import in_parallel
from ..planted import Planted
from ..plugin import DEFAULT_PROFILE, PROFILES
from ..properties import PROPERTIES
from . import MUTANTS

FULL = PROFILES[DEFAULT_PROFILE]
INTERPRETED = 5  # how many times fewer examples of another property a mutant gets that is interpreted
KILLED = ("fail", "error")
COLUMNS = ("forward", "gradient", "stateless", "finite_difference", "exact", "layout", "special")


@dataclass(frozen=True)
class Kill:
    """What one property says of one mutant: seconds to the first failure; of the smallest one, the case and its size."""

    verdict: str
    seconds: float = 0.0
    case: str = ""
    elements: int | None = None

    @property
    def symbol(self) -> str:
        return "✗" if self.verdict in KILLED else "·" if self.verdict else "?"


UNJUDGED = Kill("")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 where a mutant survives its own property."""
    parser = argparse.ArgumentParser("python -m opspec.tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=PROFILES["quick"], help="of each other property (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--minutes", type=float, help="begin nothing more after so many minutes")
    parser.add_argument("--output", type=Path, default=Path("docs/mutants.md"), help="the page (default: %(default)s)")
    options = parser.parse_args(arguments)
    entries = [(n, p) for n, mutant in enumerate(MUTANTS) for p in properties_of(mutant)]
    entries.sort(key=lambda entry: entry[1] != MUTANTS[entry[0]].property)  # what each claims goes first
    tasks = [(*entry, options.seed, options.examples) for entry in entries]
    kills: dict[int, dict[str, Kill]] = {n: {} for n in range(len(MUTANTS))}
    for (n, p, *_), kill in in_parallel(
        judge_one,
        tasks,
        what="mutants × properties",
        total=len(tasks),
        workers=options.workers,
        minutes=options.minutes,
    ):
        kills[n][p] = kill
    options.output.write_text(page(kills, options.seed, options.examples), encoding="utf-8")
    survivors = [str(m) for n, m in enumerate(MUTANTS) if _own(kills, n).verdict not in KILLED]
    print(f"{len(MUTANTS) - len(survivors)} of {len(MUTANTS)} mutants killed; {options.output} written")
    for name in survivors:
        print(f"survived: {name}")
    return int(bool(survivors))


def properties_of(mutant: Planted) -> list[str]:
    if mutant.dtype == "bfloat16":  # of which the NumPy backend has nothing beside the mutant
        return [mutant.property]
    return [p.name for p in PROPERTIES.values() if p.applies(OPERATIONS[mutant.operation])]


def judge_one(n: int, property_: str, seed: int, examples: int) -> Kill:
    """One entry of the matrix."""
    mutant, start = MUTANTS[n], time.perf_counter()
    if property_ != mutant.property:
        few = examples if mutant.base == "numpy" else -(-examples // INTERPRETED)
        return Kill(mutant.judge(seed, property_, few, shrink=False).verdict)
    first = mutant.judge(seed, property_, FULL, shrink=False)
    seconds = time.perf_counter() - start
    smallest = mutant.judge(seed, property_, FULL)
    if smallest.counterexample is None:
        return Kill(first.verdict, seconds)
    case = smallest.counterexample["case"]
    drawn = Case.parse(OPERATIONS[mutant.operation], case).draw(mutant.dtype)
    return Kill(first.verdict, seconds, case, sum(a.size for a in drawn.arrays))


def page(kills: dict[int, dict[str, Kill]], seed: int, examples: int) -> str:
    return "\n".join(_lines(kills, seed, examples)) + "\n"


def _lines(kills: dict[int, dict[str, Kill]], seed: int, examples: int) -> Iterator[str]:
    own = [_own(kills, n) for n in range(len(MUTANTS))]
    killed = sum(k.verdict in KILLED for k in own)
    sizes = sorted(k.elements for k in own if k.elements is not None)
    yield "# The kill matrix"
    yield ""
    yield f"`python -m opspec.tests.mutants --seed {seed} --examples {examples}` writes this page."
    yield ""
    yield (
        f"{killed} of {len(MUTANTS)} mutants, correct implementations with one change each, are refused by the property "
        f"that each names, in bold, on {FULL} examples (a part of them for the properties that take a part, see the "
        f"README). Every other property had {examples}, {-(-examples // INTERPRETED)} where the kernel is "
        "interpreted. "
        "The median mutant takes "
        f"{sorted(k.seconds for k in own)[len(own) // 2]:.2f} s to refuse, and {sizes[len(sizes) // 2]} input elements "
        "to show."
    )
    yield ""
    yield (
        "✗: refused; ·: passed, or proved nothing; –: does not apply; ?: not judged in this run. Seconds are to the first "
        "failure, on one core of a machine that was busy; elements are those of the input arrays of the smallest case "
        "that still fails."
    )
    for op in OPERATIONS:
        yield ""
        yield f"## {op}"
        yield ""
        yield (
            "| mutant | what it is | dtype | " + " | ".join(COLUMNS) + " | laws | seconds | elements | smallest case |"
        )
        yield "|---|---|---|" + "---|" * (len(COLUMNS) + 4)
        for n, mutant in enumerate(MUTANTS):
            if mutant.operation == op:
                yield _row(mutant, kills[n], _own(kills, n))


def _own(kills: dict[int, dict[str, Kill]], n: int) -> Kill:
    return kills[n].get(MUTANTS[n].property, UNJUDGED)


def _row(mutant: Planted, kills: dict[str, Kill], own: Kill) -> str:
    applicable = properties_of(mutant)
    columns = [kills.get(p, UNJUDGED).symbol if p in applicable else "–" for p in COLUMNS]
    if mutant.property in COLUMNS:
        columns[COLUMNS.index(mutant.property)] = f"**{own.symbol}**"
    laws = [p.removeprefix("law:") for p, kill in kills.items() if p.startswith("law:") and kill.verdict in KILLED]
    size = "–" if own.elements is None else str(own.elements)
    case = f"`{own.case}`" if own.case else "all of them together"
    name = mutant.name if mutant.base == "numpy" else f"{mutant.name} ({mutant.base})"
    says = " ".join(mutant.says.split()).replace("|", "\\|")
    words = [name, says, mutant.dtype, *columns, ", ".join(laws) or "·", f"{own.seconds:.2f}", size, case]
    return "| " + " | ".join(words) + " |"
