from typing import Any

from jaxtyping import Array

class Space:
    shape: tuple[int, ...]
    dtype: Any
    def sample(self, key: Array) -> Any: ...
    def contains(self, x: Any) -> Any: ...

class Discrete(Space):
    n: int
    def __init__(self, num_categories: int, dtype: Any = ...) -> None: ...

class Box(Space):
    low: Any
    high: Any
    def __init__(self, low: Any, high: Any, shape: tuple[int, ...] | None = None, dtype: Any = ...) -> None: ...

class Dict(Space):
    spaces: dict[Any, Space]
    def __init__(self, spaces: dict[Any, Space]) -> None: ...

class Tuple(Space):
    spaces: tuple[Space, ...]
    def __init__(self, spaces: tuple[Space, ...]) -> None: ...
