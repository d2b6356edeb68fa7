"""What the README says of numbers, names, commands and files is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from opspec.impls import SHIPPED
from opspec.spec import OPERATIONS
from opspec.tests.conformance import EVERY_PROPERTY, VERDICTS
from opspec.tests.mutants import MUTANTS
from opspec.tests.plugin import DEFAULT_PROFILE, PROFILES
from opspec.tests.variants import VARIANTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
MODULES = sorted(set(re.findall(r"python -m (opspec\.tests\.\w+)", README)))


def test_counts():
    assert f"| {len(MUTANTS)} planted bugs" in README
    assert f"| {len(VARIANTS)} correct implementations" in README


def test_names():
    said = set(re.findall(r"`([^`\s]+)`", README))
    properties = {re.sub("^law:.*", "law:NAME", p.removeprefix("trait:")) for p in EVERY_PROPERTY}
    assert not {*properties, *OPERATIONS} - said
    assert all(f"*{verdict}*" in README for verdict in VERDICTS if verdict not in ("pass", "fail"))
    assert all(f"--impl {name}" in README for name in SHIPPED)


def test_profiles():
    words = "|".join(PROFILES)
    counts = ", ".join(f"{n} (default)" if name == DEFAULT_PROFILE else str(n) for name, n in PROFILES.items())
    assert re.search(rf"--hypothesis-profile {re.escape(words)} +\({re.escape(counts)} examples\)", README)


def test_links():
    assert not [link for link in re.findall(r"\]\(([^)#:]+)\)", README) if not (ROOT / link).exists()]


@pytest.mark.parametrize("module", MODULES)
def test_commands(module):
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and module in done.stdout, done.stderr
