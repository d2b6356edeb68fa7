"""The mathematics: every operation written once, and the number systems that evaluate it.

Letters of the shapes: N, B batch · T steps · I, F input features · O outputs or output channels · H hidden units, image
height or heads · W image width · C channels · kH, kW window · oH, oW output image · M queries · S keys · D key width ·
E value width · h heads · d_k, d_v widths per head.
"""

from .arithmetic import DTYPES, FORMATS, Arithmetic, Format, format_of
from .catalogue import OPERATIONS
from .signature import Operation

__all__ = ["DTYPES", "FORMATS", "OPERATIONS", "Arithmetic", "Format", "Operation", "format_of"]
