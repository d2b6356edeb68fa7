"""`python -m opspec.tests.variants --examples 100000`: how many judged examples of correct variants the suite refuses.

By each variant's own property, and a tenth as many by each law of its operation, in rounds of 500, so that a run which is
bounded by --minutes, or interrupted, has judged all variants alike. Variants of one operation and one arithmetic are
judged on the same examples. Another --seed draws other examples. --record adds a row for each variant to a CSV file.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...spec import DTYPES, OPERATIONS, Arithmetic
from ..conformance import Result, Runner
from ..parallel import in_parallel
from . import REFUSED, VARIANTS, laws_of, name_of

ROUND = 500
PROPERTIES = ("forward", "gradient", "laws")
NAMES = tuple(dict.fromkeys(v.name for v in VARIANTS))
COLUMNS = ("variant", "dtype", "judged by", "examples", "by laws", "inconclusive", "refusals")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 where a correct variant was refused."""
    parser = argparse.ArgumentParser("python -m opspec.tests.variants", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100_000, help="of each variant (default: %(default)s)")
    parser.add_argument("--op", action="append", choices=list(OPERATIONS), help="only this operation; repeatable")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="only in this dtype; repeatable")
    parser.add_argument("--variant", action="append", choices=NAMES, metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--property", action="append", choices=PROPERTIES, help="only by these; repeatable")
    parser.add_argument("--minutes", type=float, help="begin nothing more after so many minutes")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, metavar="FILE", help="add what has been judged to this CSV file")
    options = parser.parse_args(arguments)
    if options.record and not options.record.parent.is_dir():
        parser.error(f"--record: no such folder: {options.record.parent}")
    groups = [
        (property_, group)
        for property_, group in together(options.variant or NAMES)
        if VARIANTS[group[0]].operation in (options.op or OPERATIONS)
        and VARIANTS[group[0]].dtype in (options.dtype or DTYPES)
        and ("laws" if property_.startswith("law:") else property_) in (options.property or PROPERTIES)
    ]
    if not groups:
        parser.error("no such variant is of this operation and dtype and judged by this property")
    rounds = -(-options.examples // ROUND)
    size = min(options.examples, ROUND)
    tasks = ((group, property_, options.seed + r, size, r == 0) for r in range(rounds) for property_, group in groups)
    tally = {n: Counter[str]() for n in sorted({n for _, group in groups for n in group})}
    console, refused = Console(), []
    console.width = max(console.width, 120)
    judged = in_parallel(
        judge_together,
        tasks,
        what="variants",
        total=rounds * len(groups),
        workers=options.workers,
        minutes=options.minutes,
    )
    try:
        for (group, property_, seed, *_), results in judged:
            kind = "by laws" if property_.startswith("law:") else "judged"
            for n, result in zip(group, results, strict=True):
                tally[n][kind] += result.examples
                tally[n]["inconclusive"] += result.inconclusive
                if result.verdict in REFUSED:
                    tally[n]["refused"] += 1
                    refused.append(f"{name_of(VARIANTS[n])}, seed {seed}, {describe(result)}")
                    console.print(refused[-1], highlight=False, markup=False)
    except KeyboardInterrupt:
        console.print("interrupted: what follows has been judged")
    show(console, tally)
    if options.record:
        record(options.record, options.seed, tally)
    total = sum(tally.values(), Counter())
    print(
        f"{total['refused']} refusals in {total['judged']} examples judged by the variants' own properties and "
        f"{total['by laws']} by laws, of {len(tally)} variants; {total['inconclusive']} examples inconclusive"
    )
    return int(bool(refused))


def together(names: Collection[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each property with the numbers of those of the variants that are judged by it on the same examples."""
    groups: dict[tuple[str, str, str, Arithmetic], list[int]] = {}
    for n, v in enumerate(VARIANTS):
        if v.name not in names:
            continue
        arithmetic = v.make().arithmetic(v.operation, v.dtype, gradient=v.direction == "gradient")
        for property_ in (v.property, *laws_of(v)):
            groups.setdefault((property_, v.operation, v.dtype, arithmetic), []).append(n)
    for (property_, _, _, _), group in groups.items():
        yield property_, tuple(group)


def judge_together(group: tuple[int, ...], property_: str, seed: int, examples: int, directed: bool) -> list[Result]:
    return Runner(seed, examples=examples, directed=directed).run_together([VARIANTS[n].cell(property_) for n in group])


def describe(result: Result) -> str:
    case = f"; {result.counterexample}" if result.counterexample else ""
    return f"{result.property}: {result.verdict}: {result.reason}{case}"


def rows(tally: dict[int, Counter[str]]) -> Iterator[tuple[str, ...]]:
    """Of COLUMNS, for each variant."""
    for n, counts in tally.items():
        v = VARIANTS[n]
        numbers = (str(counts[k]) for k in ("judged", "by laws", "inconclusive", "refused"))
        yield str(v), v.dtype, v.property, *numbers


def show(console: Console, tally: dict[int, Counter[str]]) -> None:
    table = Table(*COLUMNS)
    for row in rows(tally):
        table.add_row(*row)
    console.print(table)


def record(path: Path, seed: int, tally: dict[int, Counter[str]]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(("date", "seed", *COLUMNS))
        judged = {n: counts for n, counts in tally.items() if counts.total()}
        writer.writerows((date.today().isoformat(), seed, *row) for row in rows(judged))
