"""The GPU's runner, as far as no GPU is needed: it refuses, its commands are understood, and its results say what failed."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from opspec.tests import gpu
from opspec.tests.beside import inherited
from opspec.tests.gpu import Step, main, run, stem_of, steps, write


def test_without_a_gpu_nothing_is_claimed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--into", str(tmp_path / "gpu")]) == 2
    assert "no GPU was found" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [0, 1])
def test_results_are_written_beside_one_another(status, tmp_path, monkeypatch):
    fake = Step("a step", (sys.executable, "-c", f"print('seen'); raise SystemExit({status})"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU, 80GB")
    monkeypatch.setattr(gpu, "steps", lambda stem, sanitizer: [fake, Step("another", (), "it was not found")])
    assert main(["--into", str(tmp_path / "gpu")]) == status
    (page,) = (tmp_path / "gpu").glob("*-a-gpu-80gb.md")
    text = page.read_text()
    assert ("| a step | passed |" if status == 0 else "| a step | failed (1) |") in text
    assert "| another | not run |" in text and "    seen" in text and "    it was not found" in text
    found = json.loads(page.with_suffix(".json").read_text())
    assert [step["word"] for step in found["steps"]] == ["passed" if status == 0 else "failed (1)", "not run"]
    assert found["environment"]["versions"].count("torch") == 1


def test_a_step_that_fails_does_not_hide_the_ones_before(tmp_path):
    outcomes = [run(Step("good", (sys.executable, "-c", ""))), run(Step("bad", (sys.executable, "-c", "1/0")))]
    write(tmp_path / "found", outcomes)
    text = (tmp_path / "found.md").read_text()
    assert "| good | passed |" in text and "| bad | failed (1) |" in text and "ZeroDivisionError" in text


def test_names_of_files():
    assert stem_of("NVIDIA H100 80GB HBM3", datetime.date(2026, 1, 31)) == "2026-01-31-nvidia-h100-80gb-hbm3"


def test_bfloat16_comes_first_and_the_sanitizer_only_where_it_is():
    names = [step.name for step in steps(Path("x"), None)]
    assert names[0] == "conformance, bfloat16" and "speed, bfloat16" in names
    assert [step.why_not for step in steps(Path("x"), None) if "sanitizer" in step.name] == [
        "compute-sanitizer was not found"
    ] * 2
    found = [step for step in steps(Path("x"), "/bin/compute-sanitizer") if "sanitizer" in step.name]
    assert [step.command[:3] for step in found] == [
        ("/bin/compute-sanitizer", "--tool", t) for t in ("memcheck", "racecheck")
    ]


ONE_OF_EACH = [step for step in steps(Path("x"), None) if step.command and not step.name.endswith(("16", "64"))]


@pytest.mark.parametrize("step", ONE_OF_EACH, ids=lambda step: step.name)
def test_pytest_understands_the_command(step, tmp_path):
    """Collected, not run: an option that is unknown, or a backend, would be refused."""
    command = [word.replace("x-", f"{tmp_path}/x-") for word in step.command if not word.startswith("--benchmark-json")]
    root = Path(__file__).resolve().parents[1]
    command += ["--collect-only", "-q"]
    done = subprocess.run(command, cwd=root, env=inherited(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
