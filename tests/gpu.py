"""Everything that needs a GPU, in one command, with dated results: judge, sanitize, time.

    python -m opspec.tests.gpu [--into docs/gpu]

A step that fails does not keep the others from running; the exit status is 1 then, and 2 where there is no GPU.
"""

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .report import machine

HERE = Path(__file__).parent
DTYPES = ("bfloat16", "float16", "float32", "float64")  # the ones that matter most first
TAIL = 40  # lines of a step's output that the results show
BOTH = ("--impl", "triton", "--impl", "torch")
OURS = ("--impl", "triton", "--dtype", "bfloat16", "--hypothesis-profile", "quick")


@dataclass(frozen=True)
class Step:
    """A command of its own, so that what breaks a GPU's context breaks one step."""

    name: str
    command: tuple[str, ...]
    why_not: str = ""  # it cannot be run


@dataclass(frozen=True)
class Outcome:
    step: Step
    status: int | None  # of the process; None where it was not run
    seconds: float
    output: str

    @property
    def word(self) -> str:
        return "not run" if self.status is None else "passed" if self.status == 0 else f"failed ({self.status})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m opspec.tests.gpu", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("docs/gpu"), help="folder of the results (default: docs/gpu)")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no GPU was found: nothing is judged, nothing is timed, nothing is written", file=sys.stderr)
        return 2
    stem = stem_of(torch.cuda.get_device_name(), datetime.datetime.now(datetime.UTC).date())
    options.into.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for step in steps(options.into / stem, shutil.which("compute-sanitizer")):
        print(f"\n== {step.name}: {' '.join(step.command) or step.why_not}", flush=True)
        outcomes.append(run(step))
        write(options.into / stem, outcomes)  # what was found so far survives whatever comes
    return 1 if any(outcome.status for outcome in outcomes) else 0


def stem_of(device: str, date: datetime.date) -> str:
    """2026-01-31-nvidia-h100-80gb-hbm3"""
    return f"{date}-{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}"


def steps(stem: Path, sanitizer: str | None) -> list[Step]:
    """What there is to do; reports of their own go beside the results."""
    pytest = (sys.executable, "-m", "pytest")
    kernels = (*pytest, str(HERE / "test_kernels.py"), "-q")
    found = []
    for dtype in DTYPES:
        report = ("--dtype", dtype, "--conformance-report", f"{stem}-conformance-{dtype}.json")
        found.append(Step(f"conformance, {dtype}", (*pytest, *BOTH, *report)))
    found.append(Step("every kernel with every schedule", kernels))
    for tool in ("memcheck", "racecheck"):
        command = (sanitizer or "", "--tool", tool, "--error-exitcode", "9", *pytest, *OURS)
        missing = Step(f"compute-sanitizer {tool}", (), "compute-sanitizer was not found")
        found.append(Step(missing.name, command) if sanitizer else missing)
    for dtype in DTYPES[:-1]:
        speeds = ("--benchmark-only", "--dtype", dtype, f"--benchmark-json={stem}-speed-{dtype}.json")
        found.append(Step(f"speed, {dtype}", (*pytest, *BOTH, *speeds)))
    return found


def run(step: Step) -> Outcome:
    """The step's output is shown as it comes, and kept."""
    if step.why_not:
        return Outcome(step, None, 0.0, step.why_not)
    start, lines = time.monotonic(), []
    with subprocess.Popen(step.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))
    return Outcome(step, process.returncode, time.monotonic() - start, "\n".join(lines))


def write(stem: Path, outcomes: Sequence[Outcome]) -> None:
    """<stem>.md and <stem>.json: what was run where, and what came of it."""
    facts = facts_of_the_machine()
    results = [asdict(outcome) | {"word": outcome.word} for outcome in outcomes]
    Path(f"{stem}.json").write_text(json.dumps({"environment": facts, "steps": results}, indent=1), encoding="utf-8")
    lines = ["# On a GPU", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += ["| step | | seconds |", "|---|---|---|"]
    lines += [f"| {o.step.name} | {o.word} | {o.seconds:.0f} |" for o in outcomes]
    for outcome in outcomes:
        tail = outcome.output.splitlines()[-TAIL:]
        lines += ["", f"## {outcome.step.name}: {outcome.word}", ""]
        lines += [f"    {line}".rstrip() for line in (" ".join(outcome.step.command), *tail)]
    Path(f"{stem}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def facts_of_the_machine() -> dict[str, Any]:
    """Date, versions, device and driver."""
    facts = machine()
    if smi := shutil.which("nvidia-smi"):
        query = [smi, "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        facts["driver, clock, power"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return facts


if __name__ == "__main__":
    sys.exit(main())
