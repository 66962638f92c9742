"""Finds a team's definitions by path: `features/`, `training/`, `serve_apps/`, `monitoring/` under the project folder.

The folders are ordinary Python packages on the project's path, never installed, so they cannot collide with another
team's. Loading another project in the same process drops the first one's modules.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from headway.core.errors import DefinitionError, NotFound

T = TypeVar("T")
FOLDERS = ("features", "training", "serve_apps", "monitoring")


class Project:
    """The definitions under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def use_cases(self) -> list[str]:
        """Return the names of the use cases: the folders of `serve_apps` that hold a contract."""
        return sorted(path.parent.name for path in (self.root / "serve_apps").glob("*/contract.yaml"))

    def require(self, use_case: str) -> str:
        """Return the name if it exists; NotFound lists the known ones."""
        known = self.use_cases()
        if use_case not in known:
            raise NotFound("use case", use_case, known=known)
        return use_case

    def app_folder(self, use_case: str) -> Path:
        """Return `serve_apps/<use case>`."""
        return self.root / "serve_apps" / self.require(use_case)

    def one(self, folder: str, use_case: str, kind: type[T]) -> T:
        """Return the single object of `kind` in `<folder>/<use_case>` (module or package)."""
        found = _instances(self._module(f"{folder}.{use_case}"), kind)
        if len(found) != 1:
            raise DefinitionError(
                f"{len(found)} objects of {kind.__name__}", file=f"{folder}/{use_case}.py", expected="exactly one"
            )
        return found[0]

    def collect(self, folder: str, kind: type[T]) -> list[T]:
        """Return every object of `kind` in the direct modules of a folder, in name order, each once."""
        package = self._module(folder)
        found: list[T] = []
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
            for item in _instances(self._module(f"{folder}.{info.name}"), kind):
                if not any(item is known for known in found):
                    found.append(item)
        return found

    def _module(self, name: str) -> ModuleType:
        self._activate()
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise DefinitionError(
                    "no such module", file=f"{name.replace('.', '/')}.py", expected=f"a definition under {self.root}"
                ) from None
            raise

    def _activate(self) -> None:
        root = str(self.root)
        if root not in sys.path:
            sys.path.insert(0, root)
        for name, module in sys.modules.copy().items():
            if name.split(".")[0] in FOLDERS and not _under(module, self.root):
                del sys.modules[name]


def _under(module: ModuleType, root: Path) -> bool:
    places = [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", []))
    return all(place is not None and Path(place).resolve().is_relative_to(root) for place in places)


def _instances(module: ModuleType, kind: type[T]) -> list[T]:
    return [value for value in vars(module).values() if isinstance(value, kind)]
