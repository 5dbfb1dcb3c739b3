"""Where a run's metrics go, chunk by chunk, besides its table `metrics.csv`.

A logger is anything with these two methods. TensorBoard's is here; one for Weights & Biases is

```python
import wandb


class WandB:
    def log(self, metrics, step): wandb.log(metrics, step=step)
    def close(self): wandb.finish()


wandb.init(project="mec_jax")
```

and `algos.loop.train(run, folder, report, loggers=[WandB()])` takes it. A run that goes on logs from its checkpoint on,
so frames that a kill took may come twice; that is for `wandb.init(id=..., resume="allow")`, or a new run there, to say.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

__all__ = ["Logger", "TensorBoard", "logged"]


class Logger(Protocol):
    """Takes the metrics of a run."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take what was measured.

        Args:
            metrics: By name, `evaluation/...` and `training/...`; a dict of finite floats. What a chunk has no value
                for, as the return where no episode ended, is not among them.
            step: Environment frames done; it grows from call to call.
        """
        ...

    def close(self) -> None:
        """Called once, when the run ends or fails, after the last metrics."""
        ...


def logged(row: Mapping[str, float]) -> dict[str, float]:
    """What of a row of `metrics.csv` is logged: its finite metrics. A chunk in which no episode ended has no return."""
    return {name: x for name, x in row.items() if name not in ("wall_time", "frames") and math.isfinite(x)}


class TensorBoard:
    """Event files of TensorBoard. What the folder holds from before, a viewer hides and gets all anew.

    Args:
        folder: Where to put a file; it is made if it is not there.

    Raises:
        OSError: If it cannot be written, here or later.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        # A kill may have taken some: who goes on logs the earlier ones again.
        self._events.write_event(Event(step=0, session_log=SessionLog(status=SessionLog.START)))

    def log(self, metrics: Mapping[str, float], step: int, wall_time: float | None = None) -> None:
        """As of `Logger`.

        Args:
            metrics: Finite ones.
            step: Environment frames done.
            wall_time: Seconds since 1970 when they were measured; None is now.
        """
        for name, value in metrics.items():
            self._events.write_event(Event(wall_time=wall_time, step=step, summary=scalar(name, value)))
        self._events.flush()

    def close(self) -> None:
        """Close the file."""
        self._events.close()
