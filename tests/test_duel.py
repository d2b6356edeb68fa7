"""The duel's criteria against their published definitions, and its table and page on a small subset."""

import ml_dtypes
import numpy as np
import pytest

from opspec.impls import load
from opspec.tests.duel import criteria, duel, page
from opspec.tests.duel.criteria import CRITERIA
from opspec.tests.duel.inputs import Subject, examples
from opspec.tests.mutants import MUTANTS
from opspec.tests.planted import plant
from opspec.tests.variants import VARIANTS

correct = load("numpy").module
BY_NAME = {c.name: c for c in CRITERIA}
# One element that should be 1: the farthest that each definition lets pass, and what it must refuse.
LIMITS = [
    (criteria.assert_close, "float64", 1.9e-7, 2.1e-7),
    (criteria.assert_close, "float32", 1.12e-5, 1.15e-5),
    (criteria.assert_close, "float16", 1 * 2.0**-10, 2 * 2.0**-10),
    (criteria.assert_close, "bfloat16", 2 * 2.0**-7, 3 * 2.0**-7),
    (criteria.onnx_backend_test, "float32", 9.9e-4, 1.1e-3),
    (criteria.allclose(1e-4), "float32", 1.9e-4, 2.1e-4),
    (criteria.allclose(1e-2), "float16", 1.9e-2, 2.1e-2),
    (criteria.array_api_isclose, "float32", 0.99, 1.5),
    (criteria.fla_ratio, "float32", 0.0049, 0.0051),
]


@pytest.mark.parametrize(("compare", "dtype", "accepted", "refused"), LIMITS)
def test_the_limit_is_the_published_one(compare, dtype, accepted, refused):
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    one = np.ones(3, kind)
    assert compare(one, one)
    assert compare((one.astype(float) + accepted).astype(kind), one)
    assert not compare((one.astype(float) + refused).astype(kind), one)
    assert not compare(np.full(3, np.nan, kind), one)


def softmax_of_zeros(x):
    return np.zeros_like(x)


def dense_of_zeros(x, W, b, activation="identity"):
    return np.zeros((len(x), W.shape[1]), x.dtype)


def attention_of_zeros(q, k, v, mask=None, causal=False):
    return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)


def scaled(by):
    def attention(q, k, v, mask=None, causal=False):
        y = correct.attention(*(a.astype(np.float32) for a in (q, k, v)), mask=mask, causal=causal)
        return (y * np.float32(by)).astype(q.dtype)

    return attention


def judged(criterion, function, operation, kind="drawn", direction="forward", dtype="float32", number=30):
    """The verdict on a function planted into the NumPy backend, as the duel gives it."""
    subject = Subject(plant(function, operation, direction, dtype=dtype))
    given = examples(subject, kind, number, 0)
    return duel.by_criterion(criterion, BY_NAME[criterion].judge, kind, subject, given).verdict


@pytest.mark.parametrize(
    "criterion", ["assert_close", "ONNX backend test", "KernelBench 1e-4", "BackendBench", "FLA 0.005"]
)
def test_a_criterion_with_a_reference_accepts_and_refuses(criterion):
    assert judged(criterion, correct.softmax, "softmax", "normal") == "accepted"
    assert judged(criterion, softmax_of_zeros, "softmax", "normal") == "refused"


def test_array_api_tests_look_at_values_of_elementwise_functions_alone_and_hardly():
    assert judged("array-api-tests", softmax_of_zeros, "softmax") == "accepted"
    assert judged("array-api-tests", dense_of_zeros, "dense") == "accepted"
    assert judged("array-api-tests", lambda y_hat, y: np.zeros((), y.dtype), "mse") == "refused"
    assert judged("array-api-tests", lambda x: x[:, :1], "softmax") == "refused"


def test_flash_attention_allows_twice_the_error_of_pytorch_in_16_bits():
    for by, verdict in ((1, "accepted"), (1.05, "refused")):
        assert judged("FlashAttention 2×", scaled(by), "attention", "normal", dtype="bfloat16") == verdict
    assert judged("FlashAttention 2×", scaled(1), "attention", "normal", dtype="float32") == "not applicable"


def test_tosa_bounds_dot_products():
    def in_half_precision(x, W, b, activation="identity"):
        return correct.dense(x.astype(np.float16), W.astype(np.float16), b.astype(np.float16)).astype(x.dtype)

    def leans(x, W, b, activation="identity"):
        return correct.dense(x, W, b) + np.float32(2.0**-24) * (np.abs(x) @ np.abs(W) + np.abs(b))

    assert judged("TOSA", correct.dense, "dense", "normal") == "accepted"
    assert judged("TOSA", in_half_precision, "dense", "normal") == "refused"
    assert judged("TOSA", leans, "dense", "normal", number=125) == "refused"  # within every bound, but all one way
    assert judged("TOSA", correct.softmax, "softmax") == "not applicable"


@pytest.mark.parametrize("criterion", ["gradcheck, slow", "gradcheck, fast"])
def test_gradcheck_compares_the_gradient_with_differences(criterion):
    def halved(x, dp):
        return (correct.softmax_vjp(x, dp)[0] / 2,)

    def in_float32(x, dp):
        return correct.softmax_vjp(x.astype(np.float32), dp.astype(np.float32))

    for function, verdict in ((correct.softmax_vjp, "accepted"), (halved, "refused"), (in_float32, "not applicable")):
        assert judged(criterion, function, "softmax", "normal", "gradient") == verdict
    assert judged(criterion, correct.softmax_vjp, "softmax", "normal", "gradient", "float16") == "not applicable"


def test_kernelbench_has_its_own_inputs():
    subject = Subject(plant(correct.dense, "dense"))
    given = examples(subject, "KernelBench's", 125, 0)
    assert len(given) == 5
    for example in given:
        x, W, b = example.drawn.arrays
        assert [a.shape for a in (x, W, b)] == [(32, 128), (128, 64), (64,)]
        assert x.min() >= 0 and x.max() <= 1 and x.max() - x.min() > 0.99 and np.abs(W).max() <= 128**-0.5
    assert judged("KernelBench 1e-2", correct.dense, "dense", "KernelBench's") == "accepted"
    assert judged("KernelBench 1e-2", dense_of_zeros, "dense", "KernelBench's") == "refused"

    def mean_of_v(q, k, v, mask=None, causal=False):
        return np.broadcast_to(v.mean(axis=2, keepdims=True), (*q.shape[:3], v.shape[3])).astype(v.dtype)

    assert judged("KernelBench 1e-2", mean_of_v, "attention", "drawn") == "refused"
    assert judged("KernelBench 1e-4", correct.dense_vjp, "dense", "drawn", "gradient") == "not applicable"


def test_examples_are_the_same_for_all_and_fresh_for_each():
    first, second = (examples(Subject(plant(correct.softmax, "softmax")), "drawn", 9, 3) for _ in range(2))
    assert len(first) == 9 and [e.case for e in first] == [e.case for e in second]
    assert first[0].fresh().arrays[0] is not first[0].fresh().arrays[0]
    assert {e.case.values for e in examples(Subject(VARIANTS[0]), "normal", 9, 3)} == {"normal"}


def test_two_subjects_from_end_to_end(tmp_path):
    subjects = [("mutant", 0), ("variant", 0)]
    results = [(what, duel.planted(what, n), duel.judge_one(what, n, 8, 0)) for what, n in subjects]
    again = duel.judge_one("mutant", 0, 8, 0)
    assert [(v.criterion, v.kind, v.verdict, v.examples) for v in again] == [
        (v.criterion, v.kind, v.verdict, v.examples) for v in results[0][2]
    ]
    whole = {what: next(v.verdict for v in verdicts if v.criterion == duel.SUITE) for what, _, verdicts in results}
    assert whole == {"mutant": "refused", "variant": "accepted"}
    page.write(tmp_path, results, 8, 0)
    text = (tmp_path / "duel.md").read_text(encoding="utf-8")
    assert f"| {duel.SUITE} | its own | 1 | 0 | 0 | 0 | 1 | 0 |" in text
    assert all(f"**{c.name}**" in text for c in CRITERIA) and str(MUTANTS[0]) in text
    assert (tmp_path / "duel.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_counts_and_names_our_own_misses():
    def verdicts(ours, other):
        return [duel.Verdict("TOSA", "drawn", other, 1, 0.5), duel.Verdict(duel.SUITE, "its own", ours, 1, 0.25)]

    results = [
        ("mutant", MUTANTS[0], verdicts("refused", "accepted")),
        ("mutant", MUTANTS[1], verdicts("accepted", "not applicable")),
        ("variant", VARIANTS[0], verdicts("accepted", "refused")),
        ("variant", VARIANTS[1], verdicts("refused", "not applicable")),
    ]
    tosa, ours = page.summary(results)
    assert tosa.cells == ("TOSA", "drawn", "0", "1", "1", "1", "0", "1", "2.0")
    assert ours.cells == (duel.SUITE, "its own", "1", "1", "0", "1", "1", "0", "1.0")
    assert (tosa.share_caught, tosa.share_refused, ours.share_caught) == (0, 1, 0.5)
    lines = page.ours(results)
    assert any(str(MUTANTS[1]) in line for line in lines) and any(str(VARIANTS[1]) in line for line in lines)
    assert page.ours([("mutant", MUTANTS[0], verdicts("refused", "accepted"))])[-2] == "Nothing."
