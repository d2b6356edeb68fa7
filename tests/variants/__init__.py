"""Correct variants: other implementations than the NumPy backend's, none of which the suite may refuse. One file per family.

Other orders of summation, fused and unfused, blocked, wider inside, other forms of gradients. Each is judged by its own
property and by the laws of its operation. `python -m opspec.tests.variants --examples 100000` is the long run.
"""

from ..laws import LAWS
from ..planted import Planted
from . import attention, products, recurrences, windows

_PLANTINGS = (
    *(products.dense_variant, products.mse_variant, windows.conv_variant, windows.pool_variant),
    *(recurrences.rnn_variant, recurrences.lstm_variant),
    *(attention.softmax_variant, attention.variant, attention.multihead_variant),
)
VARIANTS: tuple[Planted, ...] = tuple(variant for planting in _PLANTINGS for variant in planting.plants)
REFUSED = ("fail", "error")  # a cell that says nothing, of a law in few examples, say, refuses nothing


def name_of(variant: Planted) -> str:
    return f"{variant}-{variant.dtype}"


def laws_of(variant: Planted) -> tuple[str, ...]:
    """The laws that call the function which the variant replaces."""
    of = variant.operation, variant.direction == "gradient"
    return tuple(f"law:{law.name}" for law in LAWS.values() if (law.operation.name, law.gradient) == of)
