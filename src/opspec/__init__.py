"""opspec: executable specifications for deep-learning operations, and the verifier that holds implementations to them."""

from .spec import OPERATIONS, Arithmetic, Format, Operation

__all__ = ["OPERATIONS", "Arithmetic", "Format", "Operation", "__version__"]
__version__ = "0.1.0"
