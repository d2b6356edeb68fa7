"""`python -m opspec compare before.json after.json`: what changed between two conformance reports."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from .conformance import VERDICTS

USAGE = """judge a backend with pytest:
  pytest --impl my_backend.py [--op OPERATION] [--dtype DTYPE] [--conformance-report out.json]"""
KEY = ("impl", "op", "dtype", "property")
WORSE = {"pass": set(VERDICTS) - {"pass"} | {"vanished"}, "known": {"fail", "error"}}
COLOURS = {"worse": "red", "better": "green", "changed": "yellow"}  # no bold, no dim: NO_COLOR takes away colours alone


class Invalid(Exception):
    """A file that is no conformance report: the message names it and says what was expected."""


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 where a cell got worse, or 2 where a file is no report."""
    parser = argparse.ArgumentParser("python -m opspec", epilog=USAGE, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    what = "what changed between two reports; exit code 1 if a cell got worse, 2 if a file is no report"
    command = commands.add_parser("compare", help=what, description=what)
    for name in ("before", "after"):
        command.add_argument(name, type=Path, metavar=f"{name}.json", help="as pytest --conformance-report wrote it")
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return compare(read(options.before), read(options.after))
    except Invalid as error:
        print(f"opspec compare: {error}", file=sys.stderr)
        return 2


def read(path: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    """A report's cells by backend, operation, dtype and property."""
    expected = "expected a JSON file that pytest --conformance-report wrote"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict) or report.get("opspec") != 1:
            raise Invalid(f'{path}: no "opspec": 1 in it; {expected}')
        cells = {tuple(str(cell[k]) for k in KEY): cell for cell in report["cells"]}
        for key, cell in cells.items():
            if cell["verdict"] not in VERDICTS:
                raise Invalid(f"{path}: {' '.join(key)}: verdict {cell['verdict']!r}; expected {', '.join(VERDICTS)}")
            float(cell["worst"])
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}; {expected}") from None
    except ValueError as error:  # no UTF-8, no JSON, no number
        raise Invalid(f"{path}: {error}; {expected}") from None
    except (KeyError, TypeError) as error:
        raise Invalid(f"{path}: cells are malformed: {error!r}; {expected}") from None
    return cells


def compare(before: dict[tuple[str, ...], dict], after: dict[tuple[str, ...], dict]) -> int:
    """Print every cell that changed, the worst news first, and a summary; 1 if any got worse."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # an arrow that the terminal lacks is no reason to fail
    console = Console(highlight=False, soft_wrap=True)
    counts: Counter[str] = Counter()
    lines = []
    for key in dict.fromkeys([*before, *after]):
        (old, old_worst), (new, new_worst) = _shown(before.get(key), "new"), _shown(after.get(key), "vanished")
        is_trait = key[-1].startswith("trait:")  # which is not judged, so that none gets worse
        kind = "same" if (old, old_worst) == (new, new_worst) else "changed" if is_trait else _kind(old, new)
        counts[kind] += 1
        if kind != "same":
            what = f"{'value' if is_trait else 'worst'} {old_worst} → {new_worst}"
            lines.append((kind, old == new, (kind, " ".join(key), f"{old} → {new}", what)))
    lines.sort(key=lambda line: (list(COLOURS).index(line[0]), line[1]))  # changes of nothing but the worst error: last
    widths = [max(map(len, column)) for column in zip(*(words for _, _, words in lines), strict=True)]
    for kind, _, words in lines:
        line = "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True))
        console.print(Text(line.rstrip(), style=COLOURS[kind]))
    appeared, vanished = len(after.keys() - before.keys()), len(before.keys() - after.keys())
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in (*COLOURS, "same"))
    console.print(f"{counts.total()} cells: {kinds}; {appeared} new, {vanished} vanished")
    return int(counts["worse"] > 0)


def _kind(old: str, new: str) -> str:
    if new in WORSE.get(old, ()):
        return "worse"
    return "better" if old in WORSE.get(new, ()) else "changed"


def _shown(cell: dict[str, Any] | None, missing: str) -> tuple[str, str]:
    return (cell["verdict"], cell.get("value") or f"{float(cell['worst']):.3g}") if cell else (missing, "–")
