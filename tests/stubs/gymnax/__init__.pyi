from collections.abc import Callable
from typing import Any

registered_envs: list[str]

def make(env_id: str, **env_kwargs: Any) -> tuple[Any, Any]: ...
def register(env_id: str, entry_point: Callable[..., Any]) -> None: ...
