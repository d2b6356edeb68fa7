"""Kernels with one change, planted into the triton backend: the change is made to the kernel's source."""

import atexit
import importlib
import importlib.util
import shutil
import sys
import tempfile
import types
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from .. import kernels
from ..impls import Backend, load

_number = count()
_folder = Path(tempfile.mkdtemp(prefix="planted"))  # Triton reads a kernel's source from its file
atexit.register(shutil.rmtree, _folder, ignore_errors=True)


def planted_kernel(
    operation: str, *changes: tuple[str, str], dtypes: tuple[str, ...] = ("float32",), file: str | None = None
) -> Backend:
    """The triton backend's operation, each change (old, new) made to kernels/<file>.py, as a user's plug-in.

    `file` is <operation>, or what that imports its kernels from. Raises ValueError where the old text is not there
    exactly once: then the kernel has moved on, and the bug must, too.
    """
    name = f"{file or operation}_planted_{next(_number)}"
    module = _load(name, _changed(file or operation, changes))
    if file not in (None, operation):
        imported = (f"from .{file} import", f"from .{name} import")
        module = _load(f"{operation}_planted_{next(_number)}", _changed(operation, [imported]))
    triton = load("triton").module
    plugin = types.ModuleType("planted")
    for name in ("from_numpy", "to_numpy", "judging", "arithmetic"):
        setattr(plugin, name, getattr(triton, name))
    for name in (operation, f"{operation}_vjp"):
        setattr(plugin, name, triton.kernel(getattr(module, name)))
    plugin.dtypes = dtypes  # type: ignore[attr-defined]
    return Backend(plugin, "planted.py")


def _changed(file: str, changes: Iterable[tuple[str, str]]) -> str:
    """The source of kernels/<file>.py, with these changes."""
    original = importlib.import_module(f"{kernels.__name__}.{file}")
    assert original.__file__
    source = Path(original.__file__).read_text()
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"kernels/{file}.py has {source.count(old)} times, not once: {old!r}")
        source = source.replace(old, new)
    return source


def _load(name: str, source: str) -> types.ModuleType:
    """A module of the package kernels, so that its relative imports work."""
    path = _folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(f"{kernels.__name__}.{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
