"""Constants of a package of scripts, replaced in all of its modules."""

import sys
from typing import Any

import pytest


def set_everywhere(monkeypatch: pytest.MonkeyPatch, package: str, **values: Any) -> None:
    """Give the constants other values wherever a loaded module of the package has them.

    Raises:
        AttributeError: If none has one.
    """
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{package}.")]
    for name, value in values.items():
        having = [module for module in modules if hasattr(module, name)]
        if not having:
            raise AttributeError(f"no module of {package} has {name}")
        for module in having:
            monkeypatch.setattr(module, name, value)
