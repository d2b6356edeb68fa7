"""What the oracle answered of late: implementations that are judged on the same examples ask it once."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """The latest values, each under a key, while they fit into so many bytes."""

    def __init__(self, most: int):
        self.most = most
        self.bytes = 0
        self._kept: dict[Hashable, tuple[Value, int]] = {}

    def get(self, key: Hashable) -> Value | None:
        return self._kept[key][0] if key in self._kept else None

    def keep(self, key: Hashable, value: Value, size: int) -> Value:
        """The value, which is kept unless it is larger than all there is room for; the oldest make room."""
        _, before = self._kept.pop(key, (None, 0))
        self.bytes -= before
        if size <= self.most:
            while self.bytes + size > self.most:
                _, freed = self._kept.pop(next(iter(self._kept)))
                self.bytes -= freed
            self._kept[key] = value, size
            self.bytes += size
        return value
