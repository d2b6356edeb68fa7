"""Workloads: operations at the sizes that are timed and compiled for, on a CPU and on a GPU, and their cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..spec import OPERATIONS
from .cases import Case, Drawn, shape_of

BEYOND_CACHES = 1 << 27  # bytes of inputs to cycle through, so that every round finds its own in memory


@dataclass(frozen=True, eq=False)
class Workload:
    """An operation at one size."""

    op: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    mask: str = "none"  # as a case has it, of the queries and keys of each batch element, all heads alike

    @property
    def name(self) -> str:
        return "-".join([self.op, *(k for k, v in self.parameters.items() if v is True), *self._masked])

    def __str__(self) -> str:
        words = [f"{k}{v}" for k, v in self.sizes.items()]
        words += [f"{k}={v}".replace(" ", "") for k, v in self.parameters.items()]
        return " ".join([*words, *self._masked])

    @property
    def _masked(self) -> list[str]:
        return [] if self.mask == "none" else [f"mask={self.mask}"]

    def draw(self, dtype: str) -> list[Drawn]:
        """So many sets of inputs as lie beyond the caches, at least 3."""
        sets: list[Drawn] = []
        size = 0
        while len(sets) < 3 or size < BEYOND_CACHES:
            case = Case(
                OPERATIONS[self.op],
                self.sizes,
                len(sets),
                parameters=self.parameters,
                mask=self.mask,
                mask_heads=False,
            )
            sets.append(case.draw(dtype))
            size += sum(a.nbytes for a in sets[-1].arrays + sets[-1].cotangents)
        return sets

    def shapes(self, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor], dict[str, Any]]:
        """Arrays, cotangents and parameters that have shapes and no memory (PyTorch's device "meta")."""
        op, parameters = OPERATIONS[self.op], dict(self.parameters)

        def array(letters: str, sizes: Mapping[str, int], dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.empty(shape_of(letters, sizes), dtype=dtype, device="meta")

        if self.mask != "none":
            parameters["mask"] = array("B M S", self.sizes, torch.bool)[:, None]
        arrays = [array(letters, self.sizes) for letters in op.arrays.values()]
        sizes = op.check(tuple(arrays), **parameters)
        return arrays, [array(letters, sizes) for letters in op.outputs.values()], parameters

    def flops(self, property_: str, drawn: Drawn) -> int:
        sizes = OPERATIONS[self.op].check(drawn.arrays, **drawn.parameters)
        return int(FLOPS[self.op](**{**drawn.parameters, **sizes})[property_ == "gradient"]) if self.op in FLOPS else 0

    def bytes(self, property_: str, drawn: Drawn) -> int:
        """Every array read or written once; outputs are as large as their cotangents, gradients as the arrays."""
        arrays, outputs = (sum(a.nbytes for a in group) for group in (drawn.arrays, drawn.cotangents))
        return outputs + arrays * (2 if property_ == "gradient" else 1)


WORKLOADS = (
    Workload("dense", {"N": 1024, "I": 1024, "O": 1024}, {"activation": "tanh"}),
    Workload("mse", {"N": 1024, "O": 1024}),
    Workload("softmax", {"N": 4096, "M": 1024}),
    Workload("conv2d", {"N": 8, "H": 56, "W": 56, "C": 64, "kH": 3, "kW": 3, "O": 64}, {"padding": (1, 1)}),
    Workload("maxpool2d", {"N": 8, "H": 64, "W": 64, "C": 64}, {"window": (2, 2), "stride": (2, 2)}),
    Workload("rnn", {"T": 64, "N": 32, "I": 128, "H": 256, "O": 128}),
    Workload("lstm", {"T": 64, "N": 32, "I": 128, "H": 256}),
    Workload("attention", {"B": 1, "H": 8, "M": 512, "S": 512, "D": 64, "E": 64}),
    Workload("attention", {"B": 1, "H": 8, "M": 512, "S": 512, "D": 64, "E": 64}, {"causal": True}),
    Workload("multihead_attention", {"B": 4, "M": 256, "S": 256, "F": 512, "h": 8, "d_k": 64, "d_v": 64}),
)

ON_A_GPU = (
    Workload("dense", {"N": 4096, "I": 4096, "O": 4096}, {"activation": "tanh"}),
    Workload("dense", {"N": 8192, "I": 8192, "O": 8192}, {"activation": "tanh"}),
    Workload("dense", {"N": 128, "I": 4096, "O": 4096}, {"activation": "relu"}),
    Workload("mse", {"N": 8192, "O": 4096}),
    Workload("softmax", {"N": 8192, "M": 1024}),
    Workload("softmax", {"N": 4096, "M": 32768}),
    Workload("conv2d", {"N": 32, "H": 58, "W": 58, "C": 256, "kH": 3, "kW": 3, "O": 256}),
    Workload("conv2d", {"N": 128, "H": 58, "W": 58, "C": 64, "kH": 3, "kW": 3, "O": 64}),
    Workload(
        "conv2d",
        {"N": 128, "H": 224, "W": 224, "C": 3, "kH": 7, "kW": 7, "O": 64},
        {"stride": (2, 2), "padding": (3, 3)},
    ),
    Workload("maxpool2d", {"N": 128, "H": 112, "W": 112, "C": 64}, {"window": (3, 3), "stride": (2, 2)}),
    Workload("maxpool2d", {"N": 64, "H": 56, "W": 56, "C": 256}, {"window": (2, 2), "stride": (2, 2)}),
    Workload("rnn", {"T": 1024, "N": 16, "I": 768, "H": 768, "O": 768}),
    Workload("rnn", {"T": 512, "N": 64, "I": 1024, "H": 1024, "O": 1024}),
    Workload("lstm", {"T": 1024, "N": 16, "I": 768, "H": 768}),
    Workload("lstm", {"T": 512, "N": 64, "I": 1024, "H": 1024}),
    Workload("attention", {"B": 4, "H": 32, "M": 4096, "S": 4096, "D": 128, "E": 128}),
    Workload("attention", {"B": 4, "H": 16, "M": 8192, "S": 8192, "D": 128, "E": 128}, {"causal": True}),
    Workload("attention", {"B": 4, "H": 32, "M": 4096, "S": 4096, "D": 64, "E": 64}, {"causal": True}),
    Workload("attention", {"B": 4, "H": 16, "M": 2048, "S": 2048, "D": 128, "E": 128}, mask="random"),
    Workload(
        "multihead_attention",
        {"B": 4, "M": 4096, "S": 4096, "F": 4096, "h": 32, "d_k": 128, "d_v": 128},
        {"causal": True},
    ),
)


# Forward and gradient: the multiplications and additions of the matrix products that the equations need; what is
# computed element by element is not counted. A gradient is called with the inputs alone: what it must compute again of
# the forward pass counts, what a library only computes because it differentiates so does not.


def _dense(*, N, I, O, activation="identity", **_):
    product = 2 * N * I * O
    return product, product * (2 if activation == "identity" else 3)  # φ′ needs the product again


def _conv2d(*, N, oH, oW, C, O, kH, kW, **_):
    product = 2 * N * oH * oW * C * O * kH * kW  # taps on the padding counted, as is usual
    return product, 2 * product


def _rnn(*, T, N, I, H, O, **_):
    products = 2 * T * N * (H * H + H * I + O * H)
    return products, 3 * products


def _lstm(*, T, N, I, H, **_):
    products = 2 * T * N * 4 * H * (H + I)
    return products, 3 * products


def _attention(*, B, H, M, S, D, E, causal=False, **_):
    pairs = B * H * (M * (M + 1) // 2 if causal else M * S)
    return 2 * pairs * (D + E), 2 * pairs * (3 * D + 2 * E)  # scores again, dV, dP, dQ, dK


def _multihead_attention(*, B, M, S, F, h, d_k, d_v, causal=False, **_):
    pairs = B * h * (M * (M + 1) // 2 if causal else M * S)
    heads, out = 2 * B * F * h * (M * d_k + S * d_k + S * d_v), 2 * B * M * h * d_v * F
    gradient = 3 * heads + 2 * out + 2 * pairs * (3 * d_k + 3 * d_v)  # ∂W_o needs P V again
    return heads + out + 2 * pairs * (d_k + d_v), gradient


FLOPS: dict[str, Callable[..., tuple[int, int]]] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "rnn": _rnn,
    "lstm": _lstm,
    "attention": _attention,
    "multihead_attention": _multihead_attention,
}
"""By operation; the others have no products, and their measure is the bytes."""
