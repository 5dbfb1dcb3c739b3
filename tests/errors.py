"""What callers are told when they did something wrong."""

from collections.abc import Callable
from typing import Any

import pytest


def error_of(call: Callable[..., Any], *args: Any, **named: Any) -> str:
    """The message of the plain ValueError, not a subclass with a message of its own, that a call must raise."""
    with pytest.raises(ValueError) as caught:
        call(*args, **named)
    message = str(caught.value)
    quoted = sum(len(arg) for arg in args if isinstance(arg, str))  # a name is repeated
    assert type(caught.value) is ValueError and 10 < len(message) < 600 + quoted and "\n" not in message
    return message
