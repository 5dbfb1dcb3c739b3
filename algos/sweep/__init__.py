"""Sweeps: many runs side by side, of hyper-parameters, seeds and problems, searched, scored and kept.

from algos.sweep import sweep

found = sweep("mahppo", "MultiUEOffloading-v0", {"hparams.actor_lr": "log:1e-4..1e-2"}, points=16, out="lr")
print(found.table())
"""

from algos.sweep.call import scorer, sweep
from algos.sweep.study import Sweep

__all__ = ["Sweep", "scorer", "sweep"]
