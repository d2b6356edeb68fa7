"""The museum's exhibits, and the command that visits them."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NEEDS = (
    "hypothesis",
    "jinja2",
    "ml_dtypes",
    "numpy",
    "pytest",
    "pytest-benchmark",
    "python-flint",
    "rich",
    "threadpoolctl",
)
MINUTES = 8
SEED = 0


@dataclass(frozen=True)
class Exhibit:
    """A release with a known defect.

    wheels   what pip installs; nothing: the release in the environment that runs the museum
    cells    the (operation, property) that must fail for the defect to count as found
    sound    a release without the defect, judged by the same backend and cells, which must pass
    profile  Hypothesis's: "quick" where every case costs a compilation, or an interpreter
    why_not  why no operation here reaches the defect, where none does
    """

    release: str
    defect: str
    issue: str
    wheels: tuple[str, ...] = ()
    backend: str = ""
    cells: tuple[tuple[str, str], ...] = ()
    dtype: str = "float32"
    profile: str = "ci"
    sound: tuple[str, ...] = ()
    why_not: str = ""


_MASKED_ROW = "Attention gives mean(V) to a query that may attend to no key"
_MAXPOOL = "MaxPool starts at the lowest finite number: −∞ does not come out, and NaN may be dropped"
_SHIFT = "base.at[1:].set(base[:-1]).reshape(…) under jit reads what it has written"
_CEIL = "MaxPool with ceil_mode has windows that lie in the padding alone"
EXHIBITS = (
    Exhibit(
        "numpy 2.3.0",
        "matmul into an array of negative stride: BLAS refuses the call, and the result is stray memory",
        "numpy#29164",
        ("numpy==2.3.0",),
        "numpy_bottom_up",
        (("dense", "forward"),),
        sound=("numpy==2.4.6",),
    ),
    Exhibit(
        "onnxruntime 1.27.0",
        _MASKED_ROW,
        "onnxruntime#28904",
        ("onnxruntime==1.27.0", "onnx"),
        "onnxruntime_models",
        (("attention", "forward"),),
        sound=("onnxruntime==1.32.0", "onnx"),
    ),
    Exhibit(
        "onnxruntime 1.24.4",
        _MASKED_ROW,
        "onnxruntime#28904",
        ("onnxruntime==1.24.4", "onnx"),
        "onnxruntime_models",
        (("attention", "forward"),),
    ),
    Exhibit(
        "onnxruntime 1.20.1",
        _MAXPOOL,
        "as in pytorch#39846; open",
        ("onnxruntime==1.20.1", "onnx"),
        "onnxruntime_models",
        (("maxpool2d", "special"),),
    ),
    Exhibit(
        "onnxruntime 1.32.0",
        _MAXPOOL,
        "as in pytorch#39846; open",
        ("onnxruntime==1.32.0", "onnx"),
        "onnxruntime_models",
        (("maxpool2d", "special"),),
    ),
    Exhibit(
        "onnxruntime 1.20.1",
        _CEIL,
        "onnxruntime#15446",
        why_not="max pooling here has neither padding nor ceil_mode: every window lies in the image",
    ),
    Exhibit(
        "mlx 0.31.2",
        "log_softmax subtracts max + log Σ, which is max again for large logits: log_softmax([1e8, 1e8]) = 0",
        "as in pytorch#11752",
        ("mlx[cpu]==0.31.2",),
        "mlx_log_softmax",
        (("softmax", "forward"),),
    ),
    Exhibit(
        "jaxlib 0.10.2",
        _SHIFT,
        "xla#49176",
        ("jax==0.10.2", "jaxlib==0.10.2"),
        "jax_shift",
        (("rnn", "gradient"),),
        profile="quick",
    ),
    Exhibit(
        "jaxlib 0.4.35",
        _SHIFT,
        "xla#49176",
        ("jax==0.4.35", "jaxlib==0.4.35"),
        "jax_shift",
        (("rnn", "gradient"),),
        profile="quick",
    ),
    Exhibit(
        "scipy 1.7.3",
        "softmax([1e15, 1e15 + 1]) sums to 0.94: exp(x − logsumexp(x))",
        "as in pytorch#11752",
        ("scipy==1.7.3",),
        "scipy_special",
        (("softmax", "forward"),),
    ),
    Exhibit(
        "torch, as installed",
        "scaled_dot_product_attention gives 0 where a NaN is read",
        "pytorch#141128",
        backend="torch_attention",
        cells=(("attention", "special"),),
    ),
    Exhibit(
        "torch, as installed",
        "multi_head_attention_forward gives NaN to a query that may attend to no key, if need_weights=True, and 0 otherwise",
        "pytorch#160064",
        backend="torch_attention",
        cells=(("multihead_attention", "forward"),),
    ),
    Exhibit(
        "triton, as installed",
        "products and sums in bfloat16 are wrong in the interpreter",
        "triton#11584",
        backend="triton_bfloat16",
        cells=(("dense", "forward"),),
        dtype="bfloat16",
        profile="quick",
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 1 where a defect that the operations reach was not found, or a sound release was refused."""
    parser = argparse.ArgumentParser("python -m opspec.tests.museum", description=__doc__)
    parser.add_argument("--only", default="", help="the exhibits whose release contains this")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where museum.md goes (default: %(default)s)")
    options = parser.parse_args(arguments)
    chosen = [e for e in EXHIBITS if options.only in e.release]
    console, rows = Console(), []
    for n, exhibit in enumerate(chosen, 1):
        console.print(
            f"[{n}/{len(chosen)}] {exhibit.release}: {exhibit.defect}", markup=False, highlight=False, soft_wrap=True
        )
        rows.append(visit(exhibit))
        console.print(f"    {rows[-1][0]}: {rows[-1][1]}", markup=False, highlight=False, soft_wrap=True)
        (options.docs / "museum.md").write_text("\n".join(page(chosen[:n], rows)) + "\n", encoding="utf-8")
    return int(any(verdict in ("not found", "not finished", "a sound release was refused") for verdict, _ in rows))


def visit(exhibit: Exhibit) -> tuple[str, str]:
    """Found or not, and by what."""
    if exhibit.why_not:
        return "not reachable", exhibit.why_not
    try:
        verdict, what = found(exhibit, judged(exhibit, exhibit.wheels))
        if exhibit.sound and verdict == "found":
            others = [cell for cell in judged(exhibit, exhibit.sound) if cell["verdict"] != "pass"]
            if others:
                return "a sound release was refused", f"{exhibit.sound[0]}: {others[0]['reason']}"
            what += f"; {exhibit.sound[0].replace('==', ' ')} passes"
    except NotInstalled as error:
        return "not installed", str(error)
    except subprocess.TimeoutExpired:
        return "not finished", f"not within {MINUTES} minutes"
    return verdict, what


class NotInstalled(Exception):
    """pip found no wheel: what it said."""


def found(exhibit: Exhibit, cells: list[dict]) -> tuple[str, str]:
    """The smallest case of every cell that failed, as the report has it."""
    failed = [cell for cell in cells if cell["verdict"] == "fail"]
    if len(failed) < len(exhibit.cells):
        return "not found", ", ".join(f"{c['op']} {c['property']}: {c['verdict']}" for c in cells)
    return "found", "; ".join(
        f"{c['op']}, {c['property']}: {first_line(c['reason'])}, at `{c['counterexample']['case']}`" for c in failed
    )


def first_line(text: str) -> str:
    return text.splitlines()[0].replace("|", "\\|")


def judged(exhibit: Exhibit, wheels: tuple[str, ...]) -> list[dict]:
    """The report's cells of the exhibit's operations and properties, judged in an environment with these wheels."""
    with tempfile.TemporaryDirectory() as folder:
        python = installed(Path(folder), wheels) if wheels else Path(sys.executable)
        report = Path(folder) / "report.json"
        command = [str(python), "-m", "pytest", "-q", "--impl", str(HERE / "backends" / f"{exhibit.backend}.py")]
        for operation, property_ in exhibit.cells:
            command += ["--op", operation, "--property", property_]
        command += ["--dtype", exhibit.dtype, "--hypothesis-seed", str(SEED)]
        command += ["--hypothesis-profile", exhibit.profile, "--conformance-report", str(report)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60 * MINUTES)
        if not report.exists():
            raise RuntimeError(f"no report from {' '.join(command)}:\n{run.stdout}{run.stderr}")
        cells = json.loads(report.read_text(encoding="utf-8"))["cells"]
    if broken := [cell for cell in cells if cell["property"] == "import"]:
        raise RuntimeError(f"{exhibit.backend}.py cannot be imported: {broken[0]['reason']}")
    return [cell for cell in cells if (cell["op"], cell["property"]) in exhibit.cells]


def installed(folder: Path, wheels: tuple[str, ...]) -> Path:
    """The interpreter of a new environment with the wheels, and with what the suite needs as it is tested."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    own = {re.split(r"[=\[]", wheel)[0].lower() for wheel in wheels}
    pins = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.split("==")[0].lower() not in own
    ]
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins))
    for constrained in (["-c", str(constraints)], []):  # an old release may want older versions than those
        install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *constrained, *wheels]
        needs = [name for name in NEEDS if name not in own]
        run = subprocess.run([*install, *needs], capture_output=True, text=True)
        if run.returncode == 0:
            return python
    why = [line for line in run.stderr.splitlines() if line.startswith("ERROR: No matching")]
    raise NotInstalled(f"Python {platform.python_version()}: {' '.join(why) or run.stderr}")


def release(exhibit: Exhibit) -> str:
    """Its name, with the version where it is the one installed."""
    name, here, _ = exhibit.release.partition(", as installed")
    return f"{name} {metadata.version(name)}" if here else exhibit.release


def page(exhibits: list[Exhibit], rows: list[tuple[str, str]]) -> list[str]:
    """The page, line by line."""
    lines = [
        "# A museum of known positives",
        "",
        "Released wheels that are wrong on the CPU, judged through a backend of "
        "[tests/museum/backends](../tests/museum/backends) which calls them as the author of a kernel may. Made by "
        "`python -m opspec.tests.museum`, which installs each into an environment of its own and deletes it again; Python "
        f"{platform.python_version()}, seed {SEED}. Cases are the smallest that still fail.",
        "",
        "| release | defect | upstream | | by, or why not |",
        "|---|---|---|---|---|",
    ]
    for exhibit, (verdict, what) in zip(exhibits, rows, strict=True):
        lines.append(f"| {release(exhibit)} | {exhibit.defect} | {exhibit.issue} | {verdict} | {what} |")
    reached = [verdict for verdict, _ in rows if verdict not in ("not reachable", "not installed")]
    return [*lines, "", f"Found: {reached.count('found')} of the {len(reached)} that could be installed and reached."]
