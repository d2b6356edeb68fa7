"""`python -m opspec.tests.variants --examples 100000`: how many judged examples of correct variants the suite refuses.

By each variant's own property, and a tenth as many by each law of its operation, in rounds of 500, so that a run which is
bounded by --minutes, or interrupted, has judged all variants alike. Another --seed draws other examples.
"""

import argparse
from collections import Counter

from rich.console import Console
from rich.table import Table

from ..conformance import Result
from ..parallel import in_parallel
from . import REFUSED, VARIANTS, laws_of, name_of

ROUND = 500


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 where a correct variant was refused."""
    parser = argparse.ArgumentParser("python -m opspec.tests.variants", description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100_000, help="of each variant (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="begin nothing more after so many minutes")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rounds = -(-options.examples // ROUND)
    size = min(options.examples, ROUND)
    tasks = ((n, options.seed + r, size) for r in range(rounds) for n in range(len(VARIANTS)))
    tally: dict[int, Counter[str]] = {n: Counter() for n in range(len(VARIANTS))}
    console, refused = Console(), []
    console.width = max(console.width, 120)
    judged = in_parallel(
        judge_one,
        tasks,
        what="variants",
        total=rounds * len(VARIANTS),
        workers=options.workers,
        minutes=options.minutes,
    )
    try:
        for (n, seed, _), results in judged:
            for result in results:
                kind = "by laws" if result.property.startswith("law:") else "judged"
                tally[n][kind] += result.examples
                tally[n]["inconclusive"] += result.inconclusive
                if result.verdict in REFUSED:
                    tally[n]["refused"] += 1
                    refused.append(f"{name_of(VARIANTS[n])}, seed {seed}, {describe(result)}")
                    console.print(refused[-1], highlight=False, markup=False)
    except KeyboardInterrupt:
        console.print("interrupted: what follows has been judged")
    show(console, tally)
    total = sum((c for c in tally.values()), Counter())
    print(
        f"{total['refused']} refusals in {total['judged']} examples judged by the variants' own properties and "
        f"{total['by laws']} by laws, of {len(VARIANTS)} variants; {total['inconclusive']} examples inconclusive"
    )
    return int(bool(refused))


def judge_one(n: int, seed: int, examples: int) -> list[Result]:
    variant = VARIANTS[n]
    return [variant.judge(seed, property_, examples) for property_ in (variant.property, *laws_of(variant))]


def describe(result: Result) -> str:
    case = f"; {result.counterexample}" if result.counterexample else ""
    return f"{result.property}: {result.verdict}: {result.reason}{case}"


def show(console: Console, tally: dict[int, Counter[str]]) -> None:
    table = Table("variant", "dtype", "judged by", "examples", "by laws", "inconclusive", "refusals")
    for n, counts in tally.items():
        v = VARIANTS[n]
        numbers = (str(counts[k]) for k in ("judged", "by laws", "inconclusive", "refused"))
        table.add_row(str(v), v.dtype, v.property, *numbers)
    console.print(table)
