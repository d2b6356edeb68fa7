"""Code generation without a GPU: every kernel compiled with every schedule for four chips, and the table of it.

python -m opspec.tests.codegen > docs/codegen.md          everything
python -m opspec.tests.codegen --op dense --dtype bfloat16 --target sm_90
"""

import argparse
import datetime
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import groupby
from multiprocessing import get_context

from rich.console import Console
from rich.progress import track

from ..impls import load
from ..kernels import LANE
from ..spec import OPERATIONS
from .compilations import CONTRACTS, DTYPES, TARGETS, Row, build, jobs, schedule_of
from .machine_code import MachineCode

COMMAND = "python -m opspec.tests.codegen > docs/codegen.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; what is broken goes to standard error, too, and makes the exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m opspec.tests.codegen", description=__doc__)
    parser.add_argument("--op", action="append", choices=list(OPERATIONS), help="only this operation; repeatable")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="only this dtype; repeatable")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this chip; repeatable")
    options = parser.parse_args(arguments)
    if LANE != "codegen":  # what executes kernels is decided when they are imported: begin again
        os.environ |= {"TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
        os.execv(sys.executable, [sys.executable, "-m", "opspec.tests.codegen", *(arguments or sys.argv[1:])])
    found = list(jobs(options.op or load("triton").operations, options.dtype or DTYPES, options.target or TARGETS))
    screen, rows = Console(stderr=True), []
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for row in track(pool.map(build, found), "compiling", len(found), console=screen):
            rows.append(row)
            screen.print(*broken([row]), sep="\n", end="\n" if row.broken else "", highlight=False, markup=False)
    print(page(rows, COMMAND.replace(" >", "".join(f" {word}" for word in arguments or sys.argv[1:]) + " >")))
    return 1 if broken(rows) else 0


def broken(rows: Iterable[Row]) -> list[str]:
    return [f"{row.job}: {'; '.join(row.broken)}" for row in rows if row.broken]


def page(rows: Sequence[Row], command: str = COMMAND) -> str:
    """The table, in Markdown: a summary, then every compilation."""
    date = datetime.datetime.now(datetime.UTC).date()
    lines = [
        "# Code generation",
        "",
        f"{len(rows)} compilations by Triton {version('triton')}, {date}, on a machine without a GPU: `{command}`.",
        "Every kernel is compiled where its own operation launches it, in both directions, at the sizes that are timed",
        "on a GPU, with every schedule that it may run with on the chip. Nothing here has been run. Dtypes: "
        + f"{', '.join(dict.fromkeys(row.job.dtype for row in rows))}.",
        "",
        "Contracts:",
        "",
        *(f"- {contract.__doc__}" for contract in CONTRACTS),
        "",
        *(["They hold."] if not broken(rows) else ["Broken:", "", *(f"- {line}" for line in broken(rows))]),
        "",
        "An entry: registers of a thread, shared memory of a program, matrix instructions, bytes of the widest load from",
        "global memory. In the summary: how many compilations, the most registers and memory, the narrowest load.",
        "",
    ]  # fmt: skip
    lines += _table(("kernel", "dtype"), rows, lambda row: (row.job.kernel, row.job.dtype), _summary)
    for kernel, group in groupby(sorted(rows, key=lambda row: row.job.kernel), lambda row: row.job.kernel):
        lines += ["", f"## {kernel}", ""]
        lines += _table(
            ("launch", "dtype", "schedule"),
            list(group),
            lambda row: (
                f"{row.job.workload}, {row.job.property} {row.job.launch}",
                row.job.dtype,
                schedule_of(row.job),
            ),
            lambda found: _entry(found[0]),
        )
    return "\n".join(lines)


def _table(
    heading: tuple[str, ...],
    rows: Sequence[Row],
    key: Callable[[Row], tuple[str, ...]],
    entry: Callable[[list[Row]], str],
) -> list[str]:
    """A line per key, a column per target."""
    lines: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in rows:
        lines.setdefault(key(row), {}).setdefault(row.job.target, []).append(row)
    targets = [target for target in TARGETS if any(row.job.target == target for row in rows)]
    table = [" | ".join([*heading, *targets]), "|".join(["---"] * (len(heading) + len(targets)))]
    for words, found in lines.items():
        table.append(" | ".join([*words, *(entry(found[target]) if target in found else "" for target in targets)]))
    return [f"| {line} |" for line in table]


def _entry(row: Row) -> str:
    if row.code is None:
        return "**does not compile**"
    text = _figures(row.code.registers, row.code.shared, {row.code.matrix}, row.code.load)
    return f"**{text}**" if row.broken else text


def _summary(rows: list[Row]) -> str:
    codes: list[MachineCode] = [row.code for row in rows if row.code]
    loads = [code.load for code in codes if code.load]
    text = f"{len(rows)}: " + _figures(
        max((code.registers for code in codes), default=0),
        max((code.shared for code in codes), default=0),
        {code.matrix for code in codes},
        min(loads, default=0),
    )
    return f"**{text}**" if any(row.broken for row in rows) else text


def _figures(registers: int, shared: int, matrix: set[str], load: int) -> str:
    words = [str(registers), f"{shared / 1024:.0f} KB", "/".join(sorted(matrix - {""})), f"{load} B"]
    return ", ".join(filter(None, words))


if __name__ == "__main__":
    sys.exit(main())
