from typing import Any

_registry: dict[str, Any]
