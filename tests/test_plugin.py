"""The interface, used as its users do: pytest in a process of its own, on small backends of theirs."""

import importlib.metadata
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

import opspec
from opspec.spec import OPERATIONS
from opspec.tests.compare import main as compare
from opspec.tests.conformance import VERDICTS

PYTHON = [sys.executable, "-P"]  # the current folder is not on the path, as it is not for the script `pytest`
QUICK = ("--hypothesis-profile", "quick")
ONE_CELL = ("--op", "softmax", "--dtype", "float32", "--property", "forward", *QUICK)

SOFTMAX = """
import numpy as np

def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

def right_gradient(x, dy):
    p = softmax(x)
    return (p * (dy - (p * dy).sum(-1, keepdims=True)),)
"""
WRONG = """
import numpy as np

def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    p[..., 3:] *= np.asarray(1.001, x.dtype)
    return p
"""
FLOAT32 = 'dtypes = ("float32",)\n'
BACKENDS = {
    "one.py": SOFTMAX,
    "general.py": SOFTMAX
    + FLOAT32
    + """
def vjp(function, arrays, cotangents, **parameters):
    assert function is softmax and not parameters
    return right_gradient(*arrays, *cotangents)
""",
    "general_wrong.py": SOFTMAX
    + FLOAT32
    + """
def vjp(function, arrays, cotangents):
    return (2 * right_gradient(*arrays, *cotangents)[0],)
""",
    "own.py": SOFTMAX
    + FLOAT32
    + """
softmax_vjp = right_gradient

def vjp(function, arrays, cotangents):
    raise AssertionError("the operation's own vjp goes first")
""",
    "narrow.py": """
import numpy as np

dtypes = ("float32",)

def conv2d(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], (1, 2))  # [N,oH,oW,C,kH,kW]
    return np.tensordot(windows, w, ((4, 5, 3), (0, 1, 2)))
""",
    "package/__init__.py": "",
    "package/kernels.py": SOFTMAX + FLOAT32,
    "wrapped.py": SOFTMAX.replace("def softmax", "def inner")
    + FLOAT32
    + """
class Tensor:
    def __init__(self, array):
        self.array = array

from_numpy = Tensor

def softmax(t):
    return Tensor(inner(t.array))

def to_numpy(t):
    return t.array
""",
    "tuple.py": SOFTMAX + 'dtypes = ("float64", "float16")',
    "function.py": SOFTMAX + 'def dtypes(op): return ("float64",) if op == "softmax" else ()',
    "undeclared.py": SOFTMAX.replace(
        "    return", "    e *= 1 + np.sin(1e4 * x) * np.asarray(2e-5, x.dtype)\n    return"
    )
    + FLOAT32,
    "named.py": SOFTMAX + FLOAT32 + 'NAME = "a name"',
    "known.py": WRONG + FLOAT32 + 'KNOWN_DEFECTS = {("softmax", "forward"): "issue 7: the tail is too large"}',
    "later.py": FLOAT32 + 'def softmax(x): raise NotImplementedError("not before spring")',
    "raises.py": FLOAT32 + 'def softmax(x): raise OSError("no such device")',
    "broken.py": "import no_such_module",
    "leaves.py": "import sys; sys.exit('no GPU')",
    "no_tuple.py": SOFTMAX + 'dtypes = "float32"',
    "no_dtype.py": SOFTMAX + 'dtypes = ("float32", "fp16")',
}
BACKENDS["declared.py"] = (
    BACKENDS["undeclared.py"]
    + """
from opspec import Arithmetic

def arithmetic(op, dtype):
    return Arithmetic(dtype, function_ulps=1000)
"""
)


def environment(**changes):
    """Ours, without what pytest's own run or a terminal has set in it."""
    drop = ("PYTEST_", "HYPOTHESIS_", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "PY_COLORS")
    env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    env["PYTHONPATH"] = str(Path(opspec.__file__).parents[1])
    if not any(e.name == "opspec" for e in importlib.metadata.entry_points(group="pytest11")):
        env["PYTEST_PLUGINS"] = "opspec.tests.entry"  # run from the sources, without an installation
    return env | changes


def run(folder, *arguments, **changes):
    """pytest's outcome with these arguments, in this folder."""
    command = [*PYTHON, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment(**changes), capture_output=True, text=True, encoding="utf-8", timeout=120
    )


MANY_RUNS = """
import contextlib, io, json, pytest, sys

found = []
for arguments in json.loads(sys.argv.pop()):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        with contextlib.redirect_stdout(io.StringIO()):
            code = pytest.main(["-p", "no:cacheprovider", *arguments])
    found.append((code, errors.getvalue()))
print(json.dumps(found))
"""


def run_many(folder, arguments):
    """Exit code and standard error of several runs by pytest.main in one process: a start costs a second."""
    command = [*PYTHON, "-c", MANY_RUNS, json.dumps(arguments)]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def report_of(path):
    report = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert report["opspec"] == 1
    return report


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """One run over all of BACKENDS, from another folder, so that most tests need none of their own."""
    folder = tmp_path_factory.mktemp("judged")
    for name, text in BACKENDS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    chosen = ["package.kernels", *(name for name in BACKENDS if "/" not in name)]
    arguments = [word for name in chosen for word in ("--impl", name)]
    arguments += [word for suffix in ("json", "md", "html") for word in ("--conformance-report", f"out.{suffix}")]
    for option, values in {"op": ("softmax", "conv2d"), "property": ("forward", "gradient")}.items():
        arguments += [word for value in values for word in (f"--{option}", value)]
    result = run(folder, *arguments, *QUICK, "--hypothesis-seed=0", "-v")
    report = report_of(folder / "out.json")
    return folder, result, report, {(c["impl"], c["op"], c["dtype"], c["property"]): c for c in report["cells"]}


def cell(judged, impl, property_="forward", dtype="float32", op="softmax"):
    return judged[3][impl, op, dtype, property_]


def verdict(judged, *key, **others):
    return cell(judged, *key, **others)["verdict"]


def test_one_function_is_a_backend(judged):
    """Its missing gradient is skipped, its missing operation, too: nothing of it passes."""
    for dtype in ("float32", "float64"):
        assert verdict(judged, "one", dtype=dtype) == "pass" and cell(judged, "one", dtype=dtype)["examples"] >= 20
        missing = cell(judged, "one", "gradient", dtype)
        assert (missing["verdict"], missing["examples"]) == ("unsupported", 0)
        assert missing["reason"] == "one defines neither softmax_vjp nor vjp"
        assert f"test_conforms[one-softmax-{dtype}-gradient] SKIPPED" in judged[1].stdout
    assert cell(judged, "one", op="conv2d", dtype="-")["verdict"] == "unsupported"
    assert "unsupported, because not defined: conv2d" in judged[1].stdout


@pytest.mark.parametrize(("backend", "expected"), [("general", "pass"), ("general_wrong", "fail"), ("own", "pass")])
def test_gradients_come_from_the_own_vjp_or_the_general_one(judged, backend, expected):
    assert verdict(judged, backend, "gradient") == expected
    assert verdict(judged, backend) == "pass"


def test_a_function_without_keywords_is_judged_without_them(judged):
    narrow = cell(judged, "narrow", op="conv2d")
    assert narrow["verdict"] == "pass"
    assert narrow["not_exercised"] == ["stride", "padding", "dilation"]
    for text in (judged[1].stdout, *((judged[0] / f"out.{suffix}").read_text("utf-8") for suffix in ("md", "html"))):
        assert "not exercised of conv2d: stride; padding; dilation" in text


@pytest.mark.parametrize("backend", ["kernels", "wrapped", "a name"], ids=["dotted", "from_numpy_to_numpy", "NAME"])
def test_a_backend_may_be(judged, backend):
    assert verdict(judged, backend) == "pass"


@pytest.mark.parametrize(("backend", "dtypes"), [("tuple", {"float64", "float16"}), ("function", {"float64"})])
def test_dtypes_may_be_a_tuple_or_a_function(judged, backend, dtypes):
    cells = [c for c in judged[2]["cells"] if c["impl"] == backend and c["op"] == "softmax"]
    assert {c["dtype"] for c in cells} == dtypes
    assert verdict(judged, backend, dtype="float64") == "pass"


def test_the_declared_arithmetic_decides(judged):
    assert verdict(judged, "undeclared") == "fail"
    assert verdict(judged, "declared") == "pass"


def test_a_known_defect_is_shown_as_known(judged):
    known = cell(judged, "known")
    assert known["verdict"] == "known" and "issue 7: the tail is too large" in known["reason"]
    assert "test_conforms[known-softmax-float32-forward] XFAIL" in judged[1].stdout


def test_a_known_defect_that_no_longer_shows_must_be_struck_off(tmp_path):
    """And the line that reproduces this, which no one case does, brings the same examples."""
    write(tmp_path, known=SOFTMAX + 'KNOWN_DEFECTS = {("softmax", "forward"): "issue 7: the tail is too large"}')
    result = run(tmp_path, "--impl", "known.py", *ONE_CELL[:-1], "ci")
    assert result.returncode == 1
    assert "strike it off: issue 7" in result.stdout
    again = reproduce(tmp_path, result)
    assert again.returncode == 1 and "strike it off: issue 7" in again.stdout
    assert re.search(r"seed (\d+) ", result.stdout)[1] == re.search(r"seed (\d+) ", again.stdout)[1]


def test_not_implemented_is_unsupported(judged):
    later = cell(judged, "later")
    assert (later["verdict"], later["reason"], later["examples"]) == ("unsupported", "not before spring", 0)


def test_an_exception_is_an_error_with_its_trace(judged):
    raises = cell(judged, "raises")
    assert (raises["verdict"], raises["reason"]) == ("error", "OSError: no such device")
    assert "raises.py" in raises["counterexample"]["traceback"] and "--case" in raises["reproduce"]


@pytest.mark.parametrize(
    ("backend", "why"),
    [
        ("broken.py", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("leaves.py", "ImportError: SystemExit: no GPU"),
        ("no_tuple.py", "ValueError: dtypes: expected a tuple of names, got 'float32'"),
        ("no_dtype.py", "ValueError: dtypes: 'fp16' is no dtype of arrays; known: float16, float32, float64, bfloat16"),
    ],
)
def test_a_failing_import_is_a_red_cell(judged, backend, why):
    """Of the report, too, and the other backends are judged all the same."""
    broken = cell(judged, backend, "import", "-", "-")
    assert broken["verdict"] == "error" and broken["reason"].startswith(why)
    assert broken["reproduce"] == f"pytest --impl {backend}"
    assert f"opspec backend {backend}: cannot be used: {why}" in judged[1].stdout
    assert f"test_conforms[{backend}-import] FAILED" in judged[1].stdout
    assert judged[1].returncode == 1


def test_the_header_says_what_is_judged_with_what(judged):
    header = judged[1].stdout.partition("collected")[0]
    assert re.search(r"opspec: \d+ cells, profile quick, seed 0 \(repeat with --hypothesis-seed=0\)", header)
    assert "opspec backend one: softmax (not defined: dense, mse, conv2d," in header
    assert "no gradient: softmax" in header
    for distribution in ("numpy", "hypothesis", "pytest"):
        assert f"{distribution} {importlib.metadata.version(distribution)}" in header
    assert "opspec device: " in header


def test_the_json_report(judged):
    """Has what DESIGN.md promises to those who read it."""
    _, _, report, by_key = judged
    assert {"date", "python", "platform", "device", "versions", "profile", "seed"} <= report["environment"].keys()
    assert (report["environment"]["profile"], report["environment"]["seed"]) == ("quick", 0)
    assert len(by_key) == len(report["cells"]), "a key for each cell"
    assert {c["verdict"] for c in report["cells"]} == {"pass", "fail", "known", "unsupported", "error"}
    for c in report["cells"]:
        assert {"impl", "op", "dtype", "property", "verdict", "examples", "worst", "reason"} <= c.keys()
        assert c["verdict"] in VERDICTS and isinstance(c["examples"], int) and float(c["worst"]) >= 0
        if c["verdict"] == "pass":
            assert c["examples"] > 0 and float(c["worst"]) <= 1 and c["counterexample"] is None
        if c["verdict"] in ("fail", "known"):
            found = c["counterexample"]
            assert {"case", "index", "got", "expected", "tolerance"} <= found.keys()
            assert abs(found["got"] - found["expected"]) > found["tolerance"] > 0 and float(c["worst"]) > 1
            assert all(isinstance(i, int) for i in found["index"])
            assert c["reproduce"].endswith(f"--case {shlex.quote(found['case'])}")


def test_the_markdown_and_html_reports(judged):
    folder, _, report, _ = judged
    texts = []
    parser = HTMLParser()
    parser.handle_data = texts.append
    parser.feed((folder / "out.html").read_text("utf-8"))
    for text in ("".join(texts), (folder / "out.md").read_text("utf-8")):
        for c in report["cells"]:
            assert c["impl"] in text
            assert (c["verdict"] not in ("fail", "error", "known")) or c["reproduce"] in text
        assert report["environment"]["versions"] in text
        assert f"{len(report['cells'])} cells: " in text
        assert "p[0, " in text and "but should be" in text


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A backend with a defect, given by a relative path with spaces; and what pytest prints of it."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "my kernels").mkdir()
    path = folder / "my kernels" / "soft max.py"
    path.write_text(WRONG)
    return folder, path, run(folder, "--impl", "my kernels/soft max.py", *ONE_CELL)


def reproduce(folder, result):
    """Run the line that a failure ends in, as pasted, but for which Python."""
    line = re.search("^reproduce: (pytest .*)$", result.stdout, re.MULTILINE)[1]
    return subprocess.run(
        f"{shlex.join(PYTHON)} -m {line}", shell=True, cwd=folder, env=environment(), capture_output=True, text=True
    )


def finding(result):
    """A failure's line on the element, and its case."""
    return re.findall(r"^(?:p\[|case: ).*$", result.stdout, re.MULTILINE)


def test_a_failure_says_where_and_by_how_much(wrong):
    _, _, result = wrong
    number = r"\d\.\d+(?:e[-+]\d+)?"
    element = rf"p\[0, 3\] = {number}, but should be {number} ± {number} \({number} times the tolerance\)"
    assert result.returncode == 1
    assert re.fullmatch(element, finding(result)[0])
    assert finding(result)[1] == "case: N=1 M=4 values=normal layout=plain seed=0", "shrunk"
    assert "1 cell: 1 fail;" in result.stdout


def test_output_that_is_piped_has_no_escape_codes(wrong):
    assert "conformance" in wrong[2].stdout and "\x1b" not in wrong[2].stdout


def test_the_line_to_reproduce_fails_again_until_the_backend_is_mended(wrong):
    folder, path, result = wrong
    again = reproduce(folder, result)
    assert (again.returncode, finding(again)) == (1, finding(result))
    path.write_text(SOFTMAX)
    mended = reproduce(folder, result)
    path.write_text(WRONG)
    assert mended.returncode == 0, mended.stdout
    assert "1 cell: 1 pass; 1 example judged" in mended.stdout


def test_a_seed_brings_the_same_counterexample_again(tmp_path):
    """A known defect's is not shrunk, so that it does depend on the seed, where no directed case shows it."""
    write(tmp_path, known=BACKENDS["known.py"].replace("    p[..., 3:]", "    if len(x) % 5 == 3: p[..., 3:]"))
    words = ["--impl", "known.py", *ONE_CELL]
    seeds = {"a": 7, "b": 7, "c": 8}
    runs = [[*words, f"--hypothesis-seed={n}", f"--conformance-report={name}.json"] for name, n in seeds.items()]
    assert run(tmp_path, *runs[0]).returncode == 0, "what is known is no failure"
    assert [code for code, _ in run_many(tmp_path, runs[1:])] == [0, 0]
    (a,), (b,), (c,) = (report_of(tmp_path / f"{name}.json")["cells"] for name in seeds)
    assert a["verdict"] == b["verdict"] == c["verdict"] == "known"
    assert a["counterexample"] == b["counterexample"] != c["counterexample"]


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_the_report_is_valid_whenever_the_run_ends(tmp_path, how):
    """At any moment, in fact: what has been judged is in it."""
    write(tmp_path, one=SOFTMAX, slow="import time\ndtypes = ('float64',)\ndef softmax(x): time.sleep(100)")
    words = ("--impl", "one.py", "--impl", "slow.py", "--op", "softmax", "--property", "forward", *QUICK)
    path = tmp_path / "out.json"
    main = (  # a shell's background jobs ignore SIGINT
        "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    command = [*PYTHON, "-c", main, *words, "--conformance-report", path]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not path.exists() or len(report_of(path)["cells"]) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.Signals[how])
        code = process.wait(30)
    finally:
        process.kill()
    assert code == (pytest.ExitCode.INTERRUPTED if how == "SIGINT" else -signal.SIGKILL)
    assert [(c["impl"], c["verdict"]) for c in report_of(path)["cells"]] == [("one", "pass")] * 2
    assert how == "SIGKILL" or not list(tmp_path.glob("*.partial"))


def test_a_run_that_judges_nothing_leaves_the_report_alone(tmp_path):
    write(tmp_path, one=SOFTMAX)
    (tmp_path / "out.json").write_text("an earlier report")
    result = run(tmp_path, "--impl", "one.py", "--collect-only", "--conformance-report", "out.json")
    assert result.returncode == 0 and "one-softmax-float32-forward" in result.stdout
    assert (tmp_path / "out.json").read_text() == "an earlier report"


IMPL = ["--impl", "one.py"]
CASE = [*IMPL, *ONE_CELL, "--case"]
USAGE_ERRORS = {
    "no such file": (["--impl", "nowhere.py"], "'nowhere.py': no such file", "numpy", "torch"),
    "no such module": (["--impl", "no.such"], "unknown backend 'no.such'", "numpy", "torch"),
    "no name at all": (["--impl", "./one"], "unknown backend './one'", "numpy", "torch"),
    "a folder": (["--impl", "."], "unknown backend '.'", "numpy"),
    "a module of no operation": (["--impl", "empty.py"], "'empty.py' defines none of the operations", *OPERATIONS),
    "operation": ([*IMPL, "--op", "sofmax"], "unknown op 'sofmax'", *OPERATIONS),
    "dtype": ([*IMPL, "--dtype", "float31"], "unknown dtype 'float31'", "float16", "bfloat16", "float32", "float64"),
    "property": ([*IMPL, "--property", "backward"], "unknown property 'backward'", "forward", "gradient", "bad_input"),
    "profile": ([*IMPL, "--hypothesis-profile", "slow"], "unknown profile 'slow'", "quick", "ci", "thorough"),
    "seed": ([*IMPL, "--hypothesis-seed", "x"], "--hypothesis-seed: 'x' must be an integer"),
    "suffix of the report": ([*IMPL, "--conformance-report", "out.txt"], "'out.txt'", ".json", ".html", ".md"),
    "folder of the report": ([*IMPL, "--conformance-report", "no/out.json"], "no such directory", "no"),
    "report that is a folder": ([*IMPL, "--conformance-report", "dir.json"], "cannot be written", "dir.json"),
    "dtype of no backend": ([*IMPL, "--dtype", "bfloat16"], "nothing to judge", "one has softmax in float32/float64"),
    "property of no cell": ([*IMPL, "--property", "exact"], "nothing to judge", "one has softmax"),
    "a case of no operation": ([*IMPL, "--case", "N=1 M=1"], "--case needs exactly one each of", "--op", "--dtype"),
    "a case of bad words": ([*CASE, "N=1 M=1 colour=red"], "'colour=red' is no size, parameter,", "softmax"),
    "a case that lacks sizes": ([*CASE, "N=1"], "sizes missing for softmax: M"),
    "an empty case": ([*CASE, ""], "sizes missing for softmax: N, M"),
    "a case of impossible arrays": (
        [*IMPL, *ONE_CELL[2:], "--op", "maxpool2d", "--case", "N=1 H=1 W=1 C=1 window=2x2 stride=1x1"],
        "--case",
        "window",
    ),
}


@pytest.fixture(scope="module")
def usage_errors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usage")
    write(folder, one=SOFTMAX, empty="def no_operation(): pass")
    (folder / "dir.json").mkdir()
    return dict(zip(USAGE_ERRORS, run_many(folder, [words for words, *_ in USAGE_ERRORS.values()]), strict=True))


@pytest.mark.parametrize("name", USAGE_ERRORS)
def test_a_usage_error_names_what_is_known(usage_errors, name):
    code, text = usage_errors[name]
    assert code == pytest.ExitCode.USAGE_ERROR, text
    for word in USAGE_ERRORS[name][1:]:
        assert word in text
    assert len(text.strip().splitlines()) == 1 and "Traceback" not in text


def test_impl_runs_conformance_and_nothing_else(tmp_path):
    """Whatever tests, and whatever files on the command line, there are besides. Exit code 0: no cell failed."""
    write(tmp_path, test_other="def test_other(): assert False", one=SOFTMAX)
    absolute = tmp_path / "one.py"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder, words in ((tmp_path, ("--impl", "one", "test_other.py")), (elsewhere, ("--impl", absolute))):
        result = run(folder, *words, *ONE_CELL, "-v")
        assert result.returncode == 0, result.stdout + result.stderr
        assert "opspec::test_conforms[one-softmax-float32-forward] PASSED" in result.stdout
        assert "test_other" not in result.stdout and "1 passed" in result.stdout


def test_pytests_own_options_choose_among_the_cells(tmp_path):
    write(tmp_path, wrong=WRONG)
    result = run(
        tmp_path, "--impl", "wrong.py", "--op", "softmax", *QUICK, "-q", "-x", "-k", "float64 and not gradient"
    )
    assert result.returncode == 1
    assert "1 failed" in result.stdout and "deselected" in result.stdout and "1 cell: 1 fail" in result.stdout
    assert "float32" not in result.stdout and "reproduce: pytest" in result.stdout


def test_backends_of_one_name_are_kept_apart_and_one_given_twice_is_judged_once(tmp_path):
    for folder, text in (("old", WRONG), ("new", SOFTMAX)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, kernel=text)
    names = ("old/kernel.py", "new/kernel.py", "./old/kernel.py", "old/kernel.py")
    words = [word for name in names for word in ("--impl", name)]
    result = run(tmp_path, *words, *ONE_CELL, "--conformance-report", "out.json")
    cells = [(c["impl"], c["verdict"]) for c in report_of(tmp_path / "out.json")["cells"]]
    assert cells == [("old/kernel.py", "fail"), ("new/kernel.py", "pass")]
    assert result.returncode == 1 and "2 cells: 1 pass, 1 fail" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("coloured", [True, False])
def test_a_narrow_terminal_cuts_nothing_and_shows_colours_unless_told_not_to(tmp_path, coloured):
    import pty

    names = "softmax = multihead_attention = rnn"
    text = f'{SOFTMAX}\n{names} = lambda *a, **k: 1 / 0\ndtypes = ("float16", "bfloat16", "float32", "float64")'
    write(tmp_path, one=text)
    ours, theirs = pty.openpty()
    words = ("--impl", "one.py", "--op", "softmax", "--op", "multihead_attention", "--property", "forward", *QUICK)
    env = environment(TERM="xterm", COLUMNS="60", **({} if coloured else {"NO_COLOR": "1"}))
    command = [*PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "--tb=no", "-q", *words]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
    os.close(ours)
    assert process.returncode == 1
    matrix = output.decode().partition("conformance =")[2].partition("entries:")[0]
    assert ("\x1b[31m! error" in matrix) == coloured == ("\x1b" in output.decode())
    matrix = re.sub(r"\x1b\[[\d;]*m", "", matrix).splitlines()[1:]
    assert max(map(len, matrix)) <= 60 and "…" not in "".join(matrix)
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        assert any(re.search(rf"\b{dtype}\b", line) for line in matrix)
    assert sum(line.count("! error") for line in matrix) == 8, "each cell once"


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_a_project_that_does_not_ask_for_opspec_is_left_alone(tmp_path):
    """Its options may be called as ours are."""
    option = "parser.addoption('--op'); parser.addoption('--case')"
    write(tmp_path, conftest=f"def pytest_addoption(parser): {option}")
    write(tmp_path, test_own="def test_own(request): assert request.config.getoption('op') == 'theirs'")
    result = run(tmp_path, "--op", "theirs")
    assert result.returncode == 0, result.stderr
    assert "1 passed" in result.stdout and "opspec:" not in result.stdout and "opspec backend" not in result.stdout


def a_report(path, **cells):
    """A file with one cell per operation, of (verdict, worst)."""
    key = {"impl": "mine", "dtype": "float32", "property": "forward"}
    cells = [{**key, "op": op, "verdict": verdict, "worst": worst} for op, (verdict, worst) in cells.items()]
    path.write_text(json.dumps({"opspec": 1, "environment": {}, "cells": cells}))
    return str(path)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        *((("pass", 0.5), (verdict, 0.5), 1) for verdict in VERDICTS if verdict != "pass"),
        (("pass", 0.5), None, 1),
        (("known", 9), ("fail", 9), 1),
        (("pass", 0.5), ("pass", 0.9), 0),
        (("fail", "inf"), ("pass", 0.9), 0),
        (("fail", "inf"), None, 0),
        (("known", 9), ("pass", 0.9), 0),
        (("unsupported", 0), ("fail", 9), 0),
        (None, ("fail", 9), 0),
    ],
)
def test_compare_exits_with_1_where_a_cell_got_worse(tmp_path, capsys, before, after, code):
    reports = [
        a_report(tmp_path / f"{name}.json", dense=("pass", 0.1), **({"softmax": found} if found else {}))
        for name, found in (("before", before), ("after", after))
    ]
    assert compare(["compare", *reports]) == code
    first, summary = capsys.readouterr().out.splitlines()
    verdicts = f"{before[0] if before else 'new'} → {after[0] if after else 'vanished'}"
    worst = f"worst {before[1] if before else '–'} → {after[1] if after else '–'}"
    assert re.sub(" +", " ", first).endswith(f" mine softmax float32 forward {verdicts} {worst}")
    assert first.startswith("worse") == (code == 1) == ("1 worse" in summary)
    assert summary.startswith("2 cells: ") and summary.endswith(f"{int(not before)} new, {int(not after)} vanished")


def test_compare_finds_nothing_in_equal_reports(judged, capsys):
    path = str(judged[0] / "out.json")
    assert compare(["compare", path, path]) == 0
    assert (
        capsys.readouterr().out
        == f"{(n := len(judged[3]))} cells: 0 worse, 0 better, 0 changed, {n} same; 0 new, 0 vanished\n"
    )


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"opspec": 2, "cells": []}', '{"opspec": 1, "cells": [{}]}', "\xff"]
)
def test_compare_refuses_what_is_no_report_in_one_line(tmp_path, capsys, text):
    good, bad = a_report(tmp_path / "good.json"), tmp_path / "bad.json"
    if text is not None:
        bad.write_text(text, encoding="latin-1")
    for files in ([good, str(bad)], [str(bad), good]):
        assert compare(["compare", *files]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"opspec compare: {bad}: ") and err.count("\n") == 1
        assert "expected a JSON file that pytest --conformance-report wrote" in err


def test_python_m_opspec(tmp_path):
    good, worse = a_report(tmp_path / "1.json", dense=("pass", 0.1)), a_report(tmp_path / "2.json", dense=("fail", 2))
    outcomes = [
        subprocess.run([*PYTHON, "-m", "opspec", *words], env=environment(), capture_output=True, text=True)
        for words in ([], ["compare", good, worse])
    ]
    assert [o.returncode for o in outcomes] == [0, 1]
    assert "compare" in outcomes[0].stdout and "pytest --impl my_backend.py" in outcomes[0].stdout
    assert "pass → fail" in outcomes[1].stdout and "\x1b" not in outcomes[1].stdout


def test_processes_that_share_a_run_report_what_one_does(tmp_path):
    """The same cells in the same order, with the same examples; infinities and all."""
    write(tmp_path, wrong=WRONG, nan=SOFTMAX.replace("return e /", "return np.nan * e /"))
    words = ["--impl", "wrong.py", "--impl", "nan.py", "--op", "softmax", "--dtype", "float32", *QUICK]
    for n in (0, 2):
        shared = ("-n", n, "--hypothesis-seed=3", f"--conformance-report={n}.json")
        assert run(tmp_path, *words, *shared).returncode == 1
    alone, together = (report_of(tmp_path / f"{n}.json")["cells"] for n in (0, 2))
    assert alone == together and len(alone) > 20 and {c["verdict"] for c in alone} >= {"pass", "fail"}
    assert "inf" in {c["worst"] for c in alone}


def test_a_process_that_ends_is_an_error_of_its_cell_where_another_can_go_on(tmp_path):
    write(tmp_path, ends=SOFTMAX.replace("    e =", "    if x.dtype == 'f8': import os; os.abort()\n    e ="))
    words = ("--impl", "ends.py", "--op", "softmax", "--property", "forward", *QUICK)
    result = run(tmp_path, *words, "-n", "1", "--conformance-report=out.json")
    cells = {c["dtype"]: c for c in report_of(tmp_path / "out.json")["cells"]}
    assert result.returncode == 1 and "2 cells: 1 pass, 1 error" in result.stdout
    assert cells["float32"]["verdict"] == "pass" and cells["float64"]["verdict"] == "error"
    assert "crashed while running" in cells["float64"]["reason"] and cells["float64"]["reproduce"].startswith("pytest ")
