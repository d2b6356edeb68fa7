"""What the duel found: a table on the terminal, docs/duel.md and docs/duel.png."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from ..planted import Planted
from .criteria import CRITERIA

if TYPE_CHECKING:
    from .duel import Verdict

Results = list[tuple[str, Planted, "list[Verdict]"]]
COLUMNS = (
    "criterion",
    "inputs",
    "mutants caught",
    "missed",
    "n. a.",
    "variants wrongly refused",
    "spared",
    "n. a.",
    "seconds",
)


@dataclass
class Row:
    """What a criterion did on one kind of inputs: to mutants, and to variants."""

    criterion: str
    kind: str
    caught: int = 0
    missed: int = 0
    not_caught: int = 0
    refused: int = 0
    spared: int = 0
    not_judged: int = 0
    seconds: float = 0.0

    def add(self, what: str, verdict: "Verdict") -> None:
        names = {
            "mutant": {"refused": "caught", "accepted": "missed", "not applicable": "not_caught"},
            "variant": {"refused": "refused", "accepted": "spared", "not applicable": "not_judged"},
        }
        name = names[what][verdict.verdict]
        setattr(self, name, getattr(self, name) + 1)
        self.seconds += verdict.seconds

    @property
    def cells(self) -> tuple[str, ...]:
        numbers = (self.caught, self.missed, self.not_caught, self.refused, self.spared, self.not_judged)
        return (self.criterion, self.kind, *map(str, numbers), f"{self.seconds:.1f}")

    @property
    def share_caught(self) -> float:
        """Of all mutants: what a criterion does not look at, it does not catch."""
        return self.caught / max(1, self.caught + self.missed + self.not_caught)

    @property
    def share_refused(self) -> float:
        """Of the variants that it looks at."""
        return self.refused / max(1, self.refused + self.spared)


def summary(results: Results) -> list[Row]:
    """A row for each criterion and kind of inputs, in the order in which they judged."""
    rows: dict[tuple[str, str], Row] = {}
    for what, _, verdicts in results:
        for v in verdicts:
            rows.setdefault((v.criterion, v.kind), Row(v.criterion, v.kind)).add(what, v)
    order = [c.name for c in CRITERIA]
    return sorted(rows.values(), key=lambda r: order.index(r.criterion) if r.criterion in order else len(order))


def show(console: Console, results: Results) -> None:
    table = Table(*COLUMNS)
    for row in summary(results):
        table.add_row(*row.cells)
    console.print(table)


def write(folder: Path, results: Results, examples: int, seed: int) -> None:
    rows = summary(results)
    (folder / "duel.md").write_text("\n".join(page(rows, results, examples, seed)) + "\n", encoding="utf-8")
    plot(folder / "duel.png", rows)


def page(rows: list[Row], results: Results, examples: int, seed: int) -> list[str]:
    """The page, line by line."""
    mutants, variants = (sum(what == kind for what, *_ in results) for kind in ("mutant", "variant"))
    return [
        "# The duel of criteria",
        "",
        f"{mutants} mutants, each a bug, and {variants} correct variants, judged by published criteria and by opspec. "
        "Made by",
        "",
        f"    python -m opspec.tests.duel --examples {examples} --seed {seed}",
        "",
        f"Every criterion gets the same {examples} examples of a mutant or variant, until it refuses one. *drawn*: as opspec "
        "draws them (cancellation, ties, offsets, huge and tiny numbers, masks); *normal*: the same sizes and parameters, "
        "standard normal numbers; *KernelBench's*: five of its own. The reference is the specification in float64, rounded "
        "to the storage format; where a criterion names PyTorch as its reference, PyTorch in the same format. gradcheck runs a "
        "subject in float64 where its code can be, and its slow mode gets the examples of at most 96 numbers. *n. a.*, not "
        "applicable: a criterion that does not look at gradients, at this format, or at this operation. *opspec, the same "
        "inputs* is the property forward or gradient alone, *whole suite* all properties on the inputs that each has by "
        "default. "
        "Seconds are those of all verdicts, the computation of the subject's answers included; they vary.",
        "",
        "![What is caught, and what is wrongly refused](duel.png)",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(row.cells) + " |" for row in rows),
        "",
        "## Where the criteria are published",
        "",
        *(f"- **{c.name}**: {c.source}." for c in CRITERIA),
        "",
        *ours(results),
        *by_operation(results),
    ]


def ours(results: Results) -> list[str]:
    """What opspec missed or wrongly refused, by name."""
    missed: dict[str, list[str]] = defaultdict(list)
    for what, plant, verdicts in results:
        for v in verdicts:
            wrong = v.verdict == ("accepted" if what == "mutant" else "refused")
            if v.criterion.startswith("opspec") and wrong:
                missed[f"{v.criterion}, {v.kind}: {'missed' if what == 'mutant' else 'wrongly refused'}"].append(
                    f"{plant} ({plant.dtype}, killed by {plant.property})"
                    if what == "mutant"
                    else f"{plant} ({plant.dtype})"
                )
    lines = ["## What opspec missed or wrongly refused", ""]
    for title, names in missed.items():
        lines += [f"{title} ({len(names)}):", "", *(f"- {name}" for name in names), ""]
    return lines if missed else [*lines, "Nothing.", ""]


def by_operation(results: Results) -> list[str]:
    """Every mutant and variant with the criteria that refused it."""
    lines = [
        "## By mutant and variant",
        "",
        "| | dtype | what it is | refused by, on drawn inputs or its own |",
        "|---|---|---|---|",
    ]
    for what, plant, verdicts in results:
        by = [v.criterion for v in verdicts if v.verdict == "refused" and v.kind != "normal"]
        says = " ".join(plant.says.split()).replace("|", "\\|")
        lines.append(f"| {what} {plant} | {plant.dtype} | {says} | {', '.join(dict.fromkeys(by)) or '–'} |")
    return lines


def plot(path: Path, rows: list[Row]) -> None:
    """Two bars a criterion, on its published inputs where it has any, on the drawn ones, and on normal numbers."""
    labels = [f"{r.criterion}  ({r.kind})" for r in rows]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(rows) + 1.4), layout="constrained")
    places = range(len(rows))
    axes.barh(
        [p - 0.2 for p in places], [100 * r.share_caught for r in rows], 0.38, color="#2b6cb0", label="mutants caught"
    )
    axes.barh(
        [p + 0.2 for p in places],
        [100 * r.share_refused for r in rows],
        0.38,
        color="#c53030",
        label="correct variants wrongly refused, of those it looks at",
    )
    for place, row in zip(places, rows, strict=True):
        looked = row.refused + row.spared
        all_ = row.caught + row.missed + row.not_caught
        axes.text(100 * row.share_caught + 0.8, place - 0.2, f"{row.caught}/{all_}", va="center", fontsize=7)
        axes.text(100 * row.share_refused + 0.8, place + 0.2, f"{row.refused}/{looked}", va="center", fontsize=7)
    axes.set_yticks(list(places), labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 108)
    axes.set_xlabel("per cent")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.04), ncols=2, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
