"""What is printed and written of judged cells: the matrix in the terminal, and JSON, HTML and Markdown reports."""

import datetime
import importlib.metadata
import io
import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .conformance import VERDICTS, Result
from .judge import SUITE_EXAMPLES, SUITE_FALSE_ALARM

SYMBOLS = {"pass": "✓", "fail": "✗", "known": "≈", "inconclusive": "?", "unsupported": "–", "error": "!"}
COLOURS = {
    "pass": "green",
    "fail": "red",
    "known": "yellow",
    "inconclusive": "magenta",
    "unsupported": "dim",
    "error": "red",
}
REMARKABLE = ("fail", "error", "inconclusive", "known")
MAIN = ("import", "forward", "gradient")
LINES = {"law": "law", "trait": "trait"}  # of a table, for properties of these prefixes; the others are "more"
SAME = {"yes": "=", "no": "≠"}
NOT_JUDGED = "traits are reported, not judged"


class Report:
    """Results, written after each one, so that an interrupted run leaves a complete file."""

    def __init__(self, environment: dict[str, Any], paths: list[Path]):
        self.environment, self.paths = environment, paths
        self.results: list[Result] = []
        self.write()

    def add(self, result: Result, place: int | None = None) -> None:
        self.results.insert(len(self.results) if place is None else place, result)
        self.write(only=".json")

    def write(self, only: str | None = None) -> None:
        for path in self.paths:
            if only in (None, path.suffix):
                partial = path.with_name(path.name + ".partial")
                partial.write_text(self.WRITERS[path.suffix](self), encoding="utf-8")
                os.replace(partial, path)

    def json(self) -> str:
        cells = [_plain(asdict(r)) for r in self.results]
        return json.dumps(
            {"opspec": 1, "environment": self.environment, "cells": cells},
            indent=1,
            ensure_ascii=False,
            allow_nan=False,
        )

    def markdown(self) -> str:
        lines = ["# Conformance", "", summary(self.results), ""]
        for impl, (_, dtypes, rows) in _tables(self.results).items():
            lines += [f"## {impl}", ""]
            if rows:
                lines += ["| operation | property | " + " | ".join(dtypes) + " |", "|---" * (2 + len(dtypes)) + "|"]
            lines += [
                f"| {op} | {p} | " + " | ".join(_word(by_dtype.get(d)) for d in dtypes) + " |"
                for (op, p), by_dtype in rows.items()
            ]
            lines += ["", *(f"- {note}" for note in _notes(self.results, impl)), ""]
        if any(r.value for r in self.results):
            lines += [f"{NOT_JUDGED.capitalize()}.", ""]
        for r in self.results:
            if r.verdict in REMARKABLE:
                title, text = explain(r).split("\n", 1)
                lines += [f"### {title}", "", "```", text, "```", ""]
        lines += [f"- {key}: {value}" for key, value in self.environment.items()]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        template = jinja2.Environment(autoescape=True).from_string(_HTML)
        tables = {impl: (dtypes, rows) for impl, (_, dtypes, rows) in _tables(self.results).items()}
        notes = {impl: _notes(self.results, impl) for impl in tables}
        remarkable = [(r, *explain(r).split("\n", 1)) for r in self.results if r.verdict in REMARKABLE]
        return template.render(
            tables=tables,
            notes=notes,
            summary=summary(self.results),
            symbols=SYMBOLS,
            remarkable=remarkable,
            remarkable_verdicts=REMARKABLE,
            environment=self.environment,
            word=_word,
            not_judged=NOT_JUDGED if any(r.value for r in self.results) else "",
        )

    WRITERS: ClassVar = {".json": json, ".md": markdown, ".html": html}


def environment(config: Any, seed: int) -> dict[str, Any]:
    """Where and how a run was made."""
    return machine() | {
        "profile": config.option.hypothesis_profile,
        "seed": seed,
        "false_alarm": f"{SUITE_FALSE_ALARM:g} in {SUITE_EXAMPLES:,} examples",
    }


def machine() -> dict[str, Any]:
    """When, where and with which versions."""
    names = ("opspec", "numpy", "torch", "triton", "python-flint", "ml_dtypes", "hypothesis", "pytest")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device(),
        "versions": ", ".join(f"{n} {v}" for n in names if (v := _version(n))),
    }


def explain(result: Result) -> str:
    """A failure in words: index, got, expected, tolerance, and the line that reproduces it."""
    lines = [f"{result.impl} · {result.op} · {result.dtype} · {result.property}: {result.verdict}"]
    found = result.counterexample
    if found and isinstance(found["expected"], float):
        where = f"{found['output']}[{', '.join(map(str, found['index']))}]" if found["output"] else "result"
        line = f"{where} = {found['got']!r}, but should be {found['expected']!r}"
        if found["tolerance"] == 0:
            line += " exactly (tolerance 0)"
        elif found["tolerance"] is not None:
            line += f" ± {found['tolerance']:.3g} ({result.worst:.3g} times the tolerance)"
            if result.worst <= 1:  # bias or RMS
                line = f"each element is within its tolerance, all together are not; the worst: {line}"
        lines.append(line)
    output = f" (output {found['output']})" if found and found["output"] else ""
    lines.append(f"reason: {result.reason}{output}")
    if found:
        lines.append(f"case: {found['case']}")
        if "traceback" in found:
            lines.append(found["traceback"].rstrip())
    if result.reproduce:
        lines.append(f"reproduce: {result.reproduce}")
    return "\n".join(lines)


def summary(results: list[Result]) -> str:
    traits = sum(bool(r.value) for r in results)
    counts = {v: sum(r.verdict == v and not r.value for r in results) for v in VERDICTS} | {"reported": traits}
    words = ", ".join(f"{n} {v}" for v, n in counts.items() if n)
    examples = sum(r.examples for r in results if not r.value)
    plural = ["" if n == 1 else "s" for n in (len(results), examples)]
    return f"{len(results)} cell{plural[0]}: {words}; {examples:,} example{plural[1]} judged"


def matrix(results: list[Result], width: int, colour: bool) -> list[str]:
    """The lines of a table per backend: verdict, worst error over tolerance, examples; the lesser properties on a line.

    Dtypes that find no room in the width go to a table of their own; nothing is cut off.
    """
    output = io.StringIO()
    console = Console(
        file=output,
        width=10_000,  # so that rich cuts nothing
        color_system="standard" if colour else None,  # without a system, rich writes no escape codes at all
        highlight=False,
        legacy_windows=False,
    )
    for impl, (properties, dtypes, rows) in _tables(results).items():
        console.print(Text(impl, style="bold"), soft_wrap=True)
        lesser: dict[str, list[str]] = {}
        for p in properties:
            if p not in MAIN:
                lesser.setdefault(LINES.get(p.partition(":")[0], "more"), []).append(p)
        while dtypes:
            fitting = (_table(rows, dtypes[:n], lesser) for n in range(len(dtypes), 1, -1))
            table = next((t for t in fitting if console.measure(t).maximum <= width), _table(rows, dtypes[:1], lesser))
            console.print(table)
            dtypes = dtypes[len(table.columns) - 2 :]
        for kind, names in lesser.items():
            order = ", in this order" if len(names) > 1 else ""
            meaning = f"; = same bits, ≠ other bits; {NOT_JUDGED}" if kind == "trait" else ""
            listed = ", ".join(p.removeprefix(f"{kind}:") for p in names)
            console.print(f"{_several(kind)}: {listed}{order}{meaning}", soft_wrap=True)
        for note in _notes(results, impl):
            console.print(Text(note), soft_wrap=True)
    console.print("entries: verdict, worst error over tolerance, examples judged", soft_wrap=True)
    console.print(" · ".join(f"{s} {v}" for v, s in SYMBOLS.items()), soft_wrap=True)
    console.print(summary(results), soft_wrap=True)
    return output.getvalue().splitlines()


def _table(rows: dict[tuple[str, str], dict[str, Result]], dtypes: list[str], lesser: dict[str, list[str]]) -> Table:
    table = Table(header_style="bold")
    for heading in ("operation", "property", *dtypes):
        table.add_column(heading, no_wrap=True)
    for op in dict.fromkeys(op for op, _ in rows):
        lines = [(p, _entries([rows[op, p]], dtypes)) for p in MAIN if (op, p) in rows]
        for kind, names in lesser.items():
            found = [rows[op, p] for p in names if (op, p) in rows]
            if found and kind == "trait":
                lines.append(("traits", [_traits([rows.get((op, p), {}).get(d) for p in names]) for d in dtypes]))
            elif found:
                name = kind if len(found) == 1 else _several(kind)
                lines.append((f"{len(found)} {name}", _entries(found, dtypes, short=True)))
        for n, (name, entries) in enumerate(lines):
            table.add_row("" if n else op, name, *entries)
        table.add_section()
    return table


def _notes(results: list[Result], impl: str) -> list[str]:
    """What a backend does not define, and per operation what its cells left out, being not taken or not supported."""
    own = [r for r in results if r.impl == impl]
    undefined = [r.op for r in own if _undefined(r)]
    notes = [f"{SYMBOLS['unsupported']} unsupported, because not defined: {', '.join(undefined)}"] if undefined else []
    left_out: dict[str, list[str]] = {}
    for r in own:
        left_out.setdefault(r.op, []).extend(r.not_exercised if r.verdict != "unsupported" else ())
    return notes + [f"not exercised of {op}: {'; '.join(dict.fromkeys(w))}" for op, w in left_out.items() if w]


def _undefined(result: Result) -> bool:
    """Its one cell would make a column of its own; a note says it as well."""
    return result.dtype == "-" and result.verdict == "unsupported"


def _entries(rows: list[dict[str, Result]], dtypes: list[str], short: bool = False) -> list[Text]:
    return [_entry([by_dtype.get(d) for by_dtype in rows], short) for d in dtypes]


def _several(kind: str) -> str:
    return kind if kind == "more" else kind + "s"


def _traits(results: list[Result | None]) -> Text:
    """Their values: whether bits are the same, then figures; nothing for a dtype that none was asked of."""
    words = [r.value if r and r.value else SYMBOLS["unsupported"] for r in results]
    same = "".join(SAME.get(w, w) for w in words if not w[-1].isdigit())
    return Text(" ".join([same, *(w for w in words if w[-1].isdigit())]) if any(results) else "")


def _entry(results: list[Result | None], short: bool = False) -> Text:
    """Coloured: one result in full, or the verdicts of several and their examples."""
    text = Text()
    for r in filter(None, results):
        text.append(SYMBOLS[r.verdict] if short else _word(r), style=COLOURS[r.verdict])
    if short and text:
        text.append(f"{sum(r.examples for r in results if r):>{14 - len(text)}}")
    return text


def _tables(
    results: Iterable[Result],
) -> dict[str, tuple[list[str], list[str], dict[tuple[str, str], dict[str, Result]]]]:
    """Per backend: properties, dtypes, and the results by (operation, property) and dtype."""
    tables: dict[str, tuple[list[str], list[str], dict]] = {}
    for r in results:
        properties, dtypes, rows = tables.setdefault(r.impl, ([], [], {}))
        if _undefined(r):
            continue
        for known, name in ((properties, r.property), (dtypes, r.dtype)):
            if name not in known:
                known.append(name)
        rows.setdefault((r.op, r.property), {})[r.dtype] = r
    return tables


def _word(result: Result | None) -> str:
    if result is None:
        return ""
    if result.value:
        return result.value
    if result.verdict not in ("pass", "fail"):
        return f"{SYMBOLS[result.verdict]} {result.verdict}"
    worst = f"{result.worst:.2f}" if result.worst < 100 else f"{result.worst:.0e}".replace("inf", "∞")
    return f"{SYMBOLS[result.verdict]} {worst:>5} {result.examples:>5}"


def _plain(value: Any) -> Any:
    """JSON has neither infinities, which become strings, nor NumPy's numbers."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else str(value)
    return value


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU used"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


_HTML = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>opspec conformance</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: .5rem 0 1rem } th, td { padding: .15rem .8rem; text-align: left }
th { border-bottom: 2px solid #888 } tr.first td { border-top: 1px solid #999 } h2 { margin-top: 2rem }
td.verdict { font: 13px ui-monospace, monospace; white-space: pre; border: 1px solid #fff }
.pass { background: #e4f5e4 } .fail, .error { background: #fbdcdc } .known { background: #fdf3d0 }
.inconclusive { background: #f0e2f7 } .unsupported { color: #888 } td a { color: inherit; text-decoration-style: dotted }
.note { color: #555; margin: 0 }
pre { background: #f6f6f6; padding: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1.5rem } dt { font-weight: 600 } dd { margin: 0 }
</style>
<h1>Conformance</h1>
<p>{{ summary }}; {{ environment.date }}.</p>
<p>Each entry: verdict, worst error over tolerance, examples judged{{ "; " + not_judged if not_judged else "" }}.
{% for verdict, symbol in symbols.items() %}
<span class="{{ verdict }}">&nbsp;{{ symbol }} {{ verdict }}&nbsp;</span>
{% endfor %}</p>
{% for impl, (dtypes, rows) in tables.items() %}
<h2>{{ impl }}</h2>
{% if rows %}<table><tr><th>operation<th>property{% for d in dtypes %}<th>{{ d }}{% endfor %}</tr>
{% set seen = namespace(op="") %}
{% for (op, property), by_dtype in rows.items() %}
<tr{% if op != seen.op %} class="first"{% endif %}><td>{{ op if op != seen.op else "" }}<td>{{ property }}
{% for d in dtypes %}{% set r = by_dtype.get(d) %}{% set link = r and r.verdict in remarkable_verdicts %}
<td class="verdict {{ ("" if r.value else r.verdict) if r else "" }}" title="{{ r.reason if r else "" }}">
{%- if link %}<a href="#{{ impl }}-{{ op }}-{{ d }}-{{ property }}">{% endif %}{{ word(r) }}{% if link %}</a>{% endif %}
{%- endfor %}</tr>
{% set seen.op = op %}{% endfor %}
</table>{% endif %}
{% for note in notes[impl] %}<p class="note">{{ note }}</p>
{% endfor %}{% endfor %}
{% if remarkable %}<h2>Findings</h2>{% endif %}
{% for r, title, text in remarkable %}
<h3 id="{{ r.impl }}-{{ r.op }}-{{ r.dtype }}-{{ r.property }}">{{ title }}</h3>
<pre>{{ text }}</pre>
{% endfor %}
<h2>Environment</h2>
<dl>{% for key, value in environment.items() %}<dt>{{ key }}<dd>{{ value }}{% endfor %}</dl>
</html>
"""
