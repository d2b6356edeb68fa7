"""The document: its worked example to the printed digit, and every erratum as an executed difference."""

import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from flint import arb

from opspec.spec import OPERATIONS
from opspec.spec.certified import Certified, Undecided, precision
from opspec.spec.document import EQUATIONS, ERRATA, markdown, proved, worked_example
from opspec.spec.rational import rational

dW, db = [[-0.0494, 0.0730], [-0.0099, 0.0146]], [-0.0987, 0.1461]
VALUES = {  # the document's, and its own equations'; worked out by hand
    "loss_not_named": ([[2, 1]], [[4, 2]]),
    "columns_multiplied": (1, 2),
    "gradient_transposed": ([[-0.0494, -0.0099], [0.0730, 0.0146]], dW),
    "relu_at_zero": (0, 1),
    "kernel_not_flipped": ([1, 2, 3], [3, 2, 1]),
    "sizes_are_indices": (3, 2),
    "windows_overlap": ((4, 4), (7, 7)),
    "two_orientations": ("I O", "H I"),
    "initial_state_missing": (0.0, 0.7616),
    "gradient_still_vanishes": (1.0, 2.0**-10),
    "values_not_compared": (True, False),
    "queries_are_free": (3, 2),
    "width_not_factor": (4, 0.5),
    "axis_missing": (2.0, 1.0),
    "sum_miscalculated": ([0.33, 0.65], [0.37, 0.49]),
    "output_miscalculated": ([0.58, 0.66], [0.5915, 0.6201]),
    "row_or_column": ((1, 2), (2, 1)),
    "mean_not_half_sum": (1.0, 1.5),
    "breaks_off": (None, (dW, db)),
}


@pytest.mark.parametrize("erratum", ERRATA, ids=lambda e: f"{e.section}-{e.check.__name__}")
def test_the_claim_differs_from_its_own_equation(erratum):
    claimed, computed = erratum.check()
    assert claimed != computed
    assert (claimed, computed) == VALUES[erratum.check.__name__]


def test_every_erratum_is_named_once_and_in_the_documents_order():
    assert sorted(e.check.__name__ for e in ERRATA) == sorted(VALUES)
    assert [e.section for e in ERRATA] == sorted(e.section for e in ERRATA)


def test_worked_example_in_plain_floats():
    """The same numbers without any spec: §4.1's W, x, b through math.exp."""
    z = [0.1 * 0.5 + 0.2 * 0.1 + 0.3, 0.4 * 0.5 + 0.9 * 0.1 + 0.2]
    y_hat = [1 / (1 + math.exp(-v)) for v in z]
    error = [y_hat[0] - 1, y_hat[1] - 0]
    delta = [e * y * (1 - y) for e, y in zip(error, y_hat, strict=True)]
    expected = {
        "z": z,
        "ŷ": y_hat,
        "L": sum(e * e for e in error) / 2,
        "∂L/∂ŷ": error,
        "∂L/∂W": [[x * d for d in delta] for x in (0.5, 0.1)],
        "∂L/∂b": delta,
    }
    for name, balls in worked_example().items():
        assert np.allclose(proved(balls, 14), expected[name], rtol=0, atol=1e-13), name
    assert list(worked_example()) == list(expected)


def test_the_sum_is_exact_and_no_orientation_of_W_gives_the_documents():
    W, x, b = (np.vectorize(Fraction)(a) for a in ([["0.1", "0.4"], ["0.2", "0.9"]], ["0.5", "0.1"], ["0.3", "0.2"]))
    assert (W.T @ x + b).tolist() == [Fraction("0.37"), Fraction("0.49")]
    assert (W @ x + b).tolist() == [Fraction("0.39"), Fraction("0.39")]
    dense = OPERATIONS["dense"].function
    assert (dense(x[None], W, b) == [[Fraction("0.37"), Fraction("0.49")]]).all()
    assert rational([0.37])[0] != Fraction("0.37"), "a float would not have been the document's decimal"


def test_gradient_lowers_the_loss_only_in_Ws_own_orientation():
    """A step against x δᵀ lowers ½‖ŷ − y‖² by η‖∂L/∂W‖² to first order; against the document's δ xᵀ it does not."""
    W, b = np.array([[0.1, 0.4], [0.2, 0.9]]), np.array([0.3, 0.2])
    x, y = np.array([[0.5, 0.1]]), np.array([[1.0, 0.0]])
    dense, mse, eta = OPERATIONS["dense"].function, OPERATIONS["mse"].function, 1e-6
    G = np.array([[float(v) for v in row] for row in worked_example()["∂L/∂W"].values])

    def slope(direction):
        losses = [mse(dense(x, W + s * eta * direction, b, activation="sigmoid"), y) for s in (-1, 1)]
        return (losses[1] - losses[0]) / (2 * eta)

    assert slope(G) == pytest.approx(np.sum(G * G), rel=1e-6)
    assert slope(G.T) != pytest.approx(np.sum(G * G), rel=0.1)


def test_proved_refuses_a_digit_that_the_ball_leaves_open():
    with precision(64):
        wide, narrow = arb("0.12345 +/- 1e-9"), arb("0.12346 +/- 1e-9")
    with pytest.raises(Undecided):
        proved(Certified(np.array([wide], object)))  # 0.12345 may round to 0.1234 or 0.1235
    assert proved(Certified(np.array([narrow, -narrow], object))) == [0.1235, -0.1235]


def test_the_equations_cover_the_catalogue():
    assert {e.spec for e in EQUATIONS} >= set(OPERATIONS)
    covered = {"3.1.1", "3.1.2", "3.2.1", "3.2.2", "3.3.1", "3.3.2", "3.4.1", "3.4.2", "4.1", "4.1.1", "4.1.2"}
    assert {e.section for e in EQUATIONS} == covered >= {e.section for e in ERRATA}


def test_markdown_is_what_the_module_prints():
    text = markdown()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "opspec.spec.document"]
    printed = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", env=environment)
    assert printed.stdout.strip() == text
    tables = [table.splitlines() for table in text.split("\n\n")]
    assert [len(table) - 2 for table in tables] == [len(EQUATIONS), len(worked_example()), len(ERRATA)]
    assert all(row.count(" | ") == table[0].count(" | ") for table in tables for row in table)
    assert "{}" not in text


def test_the_page_is_what_the_module_prints():
    page = Path(__file__).resolve().parents[1] / "docs" / "document.md"
    if not page.exists():
        pytest.skip("docs/ is not part of the wheel")
    assert page.read_text(encoding="utf-8").strip() == markdown().strip(), (
        "python -m opspec.spec.document > docs/document.md"
    )
