"""What every shipped backend asks of a call before it computes: that the specification knows such a call."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..spec import OPERATIONS


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which is named <operation> or <operation>_vjp, with every call validated first.

    Arrays, then cotangents, are positional and parameters are keywords; the signature stays visible to `inspect`.
    """
    operation = function.__name__.removesuffix("_vjp")
    is_vjp, count = function.__name__ != operation, len(OPERATIONS[operation].arrays)

    @wraps(function)
    def call(*arrays: Any, **parameters: Any) -> Any:
        if is_vjp:
            validate(operation, arrays[:count], arrays[count:], **parameters)
        else:
            validate(operation, arrays, **parameters)
        return function(*arrays, **parameters)

    return call


def validate(
    operation: str, arrays: Sequence[Any], cotangents: Sequence[Any] | None = None, /, **parameters: Any
) -> None:
    """Raises ValueError that names the argument whose number, shape, dtype or value does not fit the operation.

    cotangents=None stands for a forward call. All arrays and cotangents share one dtype; a mask, a parameter, is bool.
    """
    spec = OPERATIONS[operation]
    spec.check(tuple(arrays), tuple(cotangents or ()), **parameters)
    outputs = [] if cotangents is None else [f"cotangent of {name}" for name in spec.outputs]
    if outputs and not cotangents:
        raise ValueError(f"{operation}: after the arrays comes the {', the '.join(outputs)}; got none")
    named = list(zip([*spec.arrays, *outputs], [*arrays, *(cotangents or ())], strict=True))
    (first, expected), *others = ((name, getattr(array, "dtype", None)) for name, array in named)
    for name, dtype in others:
        if dtype != expected:
            raise ValueError(f"{operation}: {name} must have the dtype of {first}, {expected}, got {dtype}")
