from collections.abc import Callable
from typing import Any

from gymnax.environments.environment import Environment, EnvParams

registered_envs: list[str]

def make(env_id: str, **env_kwargs: Any) -> tuple[Environment[Any, Any], EnvParams]: ...
def register(env_id: str, entry_point: Callable[..., Any]) -> None: ...
