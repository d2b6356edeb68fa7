"""Correct rewrites of the operations may not be refused, neither by their own property nor by a law.

The long run is `python -m opspec.tests.variants`.
"""

import pytest

from opspec import OPERATIONS
from opspec.tests.conformance import Runner
from opspec.tests.variants import REFUSED, VARIANTS, laws_of, name_of
from opspec.tests.variants.long_run import main

EXAMPLES = 40  # a short run; the long one has ten thousands

# Found by the long run: the smallest subnormal, from a difference of two products below it; rounding errors of equal terms;
# products with one weight whose rounding errors all leaned one way, when the values were nearer to ± 1 than they are now;
# PyTorch's attention, whose gradient takes y from the forward, when the specification took y from the P of the gradient;
# equal weights that blocks of keys round each in their own way, when all replicates had equal errors of equal numbers;
# half of a subnormal cotangent, when powers of two cost nothing anywhere; a bias that thousands of rows lost the same of;
# weights that were scaled to just below a power of two, where products round one way; and one factor of all products that
# is as near one by chance; equal terms that are added to a bias.
ONCE_REFUSED = [
    ("jacobian_multiplied_out", "float32", "N=32 M=63 values=mixed layout=plain seed=13650"),
    ("two_passes_summed_backwards", "float32", "N=31 M=63 values=ties layout=plain seed=1922"),
    (
        "shifted_sums",
        "float32",
        "N=3 H=128 W=2 C=1 kH=1 kW=4 O=3 stride=1x3 padding=3x3 dilation=1x1 values=cancelling layout=plain seed=6",
    ),
    (
        "gradient_with_the_output_of_the_forward",
        "float64",
        "B=1 H=1 M=40 S=40 D=2 E=2 causal=True values=lowest layout=plain seed=0",
    ),
    (
        "p_rounded_to_bfloat16_and_declared",
        "bfloat16",
        "B=1 H=2 M=31 S=9 D=1 E=2 mask=random:1:1 values=integers layout=plain seed=0",
    ),
    (
        "one_product_a_step",
        "float32",
        "T=1 N=4097 I=1 H=1 O=1 activation=identity values=negative layout=plain seed=198",
    ),
    (
        "shifted_sums",
        "float32",
        "N=513 H=1 W=1 C=1 kH=3 kW=3 O=2 padding=3x3 dilation=1x1 stride=3x3 values=offset layout=plain seed=47289",
    ),
    ("gradient_of_the_halved_square", "float16", "N=15 O=17 values=quiet layout=plain seed=182"),
    (
        "conv_in_float32",
        "float16",
        "N=1 H=1 W=1 C=1 kH=1 kW=1 O=257 values=negative layout=plain seed=3507",
    ),
    (
        "one_term_after_another_from_the_bias",
        "float32",
        "N=7 I=15 O=3 activation=tanh values=small layout=broadcast seed=115",
    ),
    (
        "one_term_after_another_from_the_bias",
        "float32",
        "N=33 I=63 O=5 values=normal layout=broadcast seed=12",
    ),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_correct_variant_is_not_refused(variant, suite):
    result = variant.judge(suite.seed, examples=EXAMPLES)
    assert result.verdict == "pass", result


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_correct_variant_obeys_the_laws(variant, suite):
    for law in laws_of(variant):
        result = variant.judge(suite.seed, law, examples=EXAMPLES)
        assert result.verdict not in REFUSED, result


@pytest.mark.parametrize(("name", "dtype", "case"), ONCE_REFUSED)
def test_what_was_refused_once(name, dtype, case, suite):
    (variant,) = (v for v in VARIANTS if (v.name, v.dtype) == (name, dtype))
    result = Runner(suite.seed, case).run(variant.cell())
    assert result.verdict == "pass", result


def test_every_operation_and_every_gradient_has_a_variant():
    assert {v.operation for v in VARIANTS} == set(OPERATIONS)
    assert {v.operation for v in VARIANTS if v.direction == "gradient"} == set(OPERATIONS)
    assert {v.dtype for v in VARIANTS} == {"bfloat16", "float16", "float32", "float64"}
    assert len({name_of(v) for v in VARIANTS}) == len(VARIANTS)


def test_laws_are_those_of_the_function_that_is_replaced():
    laws = {v.name: laws_of(v) for v in VARIANTS}
    assert laws["through_exp2"] == ("law:rows_sum_to_one", "law:ignores_shifts", "law:batch_is_independent")
    assert laws["jacobian_multiplied_out"] == ("law:vjp_is_linear",)


def test_the_long_run_counts_what_it_judged(capsys, tmp_path):
    arguments = ["--examples", "4", "--op", "mse", "--workers", "1", "--record", str(tmp_path / "variants.csv")]
    assert main(arguments) == main(arguments) == 0
    assert "0 refusals in " in capsys.readouterr().out
    header, *rows = (line.split(",") for line in (tmp_path / "variants.csv").read_text().splitlines())
    mse = [name_of(v) for v in VARIANTS if v.operation == "mse"]
    assert [f"{row[2]}-{row[3]}" for row in rows] == 2 * mse
    assert {row[header.index("examples")] for row in rows} == {"4"}


def test_the_long_run_of_all_may_be_bounded(capsys):
    assert main(["--examples", "4", "--minutes", "0.02", "--workers", "1"]) == 0
    assert "0 refusals in " in capsys.readouterr().out


def test_the_long_run_cannot_be_recorded_nowhere(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["--record", str(tmp_path / "missing" / "variants.csv")])
    assert "no such folder" in capsys.readouterr().err
