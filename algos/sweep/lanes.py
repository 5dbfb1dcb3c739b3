"""Training runs side by side, a lane each, in the programs that one run has: first state, chunk, evaluation.

On a CPU the lanes of a device run in sequence, one device a core: a vmapped program of all takes half as long again,
and as many times the memory as there are lanes (`benchmarks.speed.sweeps`). On a GPU as many run at once as fit into
its memory.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PyTree

from algos.algorithms import algorithm
from algos.run_config import RunConfig, as_arrays
from mec_jax.contracts import Episodes
from mec_jax.episodes import evaluation_keys, play_episode
from mec_jax.memory import check_memory, limit, operations, peak_bytes

__all__ = ["Batch", "Lanes", "Outcome", "devices", "group"]

SHARE = 0.6
"""Of a GPU's memory that lanes may fill; estimates are off by a third."""


OPERATIONS = 3e9
"""Of `mec_jax.memory.operations`, that a core of a CPU does in a second; half as many, or twice."""


class Batch(NamedTuple):
    """What lanes are given, leaves [lane]."""

    hparams: PyTree
    params: PyTree  # of the environment
    seed: Int[Array, " lane"]


class Seen(NamedTuple):
    """What is known of a lane after a chunk; of several, leaves [lane]."""

    frames: Int[Array, ""]  # environment frames so far
    training_return: Float[Array, ""]  # mean over the episodes that ended in the last update; NaN if none did
    finite: Bool[Array, ""]  # the losses of the chunk, and all that is trained


class Outcome(NamedTuple):
    """What a run came to."""

    episodes: Episodes  # [episode], in the evaluation scenario after training
    curve: Float[np.ndarray, " chunk"]  # mean return of these episodes after each chunk
    frames: Int[np.ndarray, " chunk"]  # environment frames so far
    training_return: float  # mean over the episodes that ended in the last update; NaN if none did
    diverged: bool  # losses or what is trained ceased to be finite


def devices() -> list[jax.Device]:
    """What lanes are spread over: all local devices."""
    return jax.local_devices()


def group(run: RunConfig) -> tuple[str, str, str]:
    """What decides the programs of a run: those that agree in it share them."""
    return run.algorithm, repr((run.env_id, sorted(run.env_static.items()))), repr(run.config)


class Lanes:
    """The programs of the runs of a group, compiled on first use.

    Args:
        run: One of them.
        episodes: Of the evaluation scenario, by which each is measured after each chunk.
        most: Lanes that there are, at most.

    Attributes:
        trainer: Of one run.
        init: Of one lane, `Batch -> state`, to be traced.
        chunk: Of one lane, `(state, Batch) -> (state, Seen)`.
        measure: Of one lane, `(state, Batch) -> Episodes`.
        local: Devices.
        mesh: Of these, with the axis "lane".
        at_once: Lanes of each that run at once.
        size: Lanes of a call.
        bytes: Estimate of what a call keeps at once, byte.
        seconds: Estimate of what a run takes on a core of a CPU.

    Raises:
        ValueError: If the parts of the run do not go together, or a lane needs more memory than the limit.
    """

    def __init__(self, run: RunConfig, episodes: int, most: int) -> None:
        env, _ = run.make_env()
        learner = algorithm(run.algorithm)
        trainer = learner.make_trainer(env, run.config)
        policy = learner.make_policy(env, run.config, learner.deterministic)

        def init(one: Batch) -> PyTree:
            return trainer.init(one.hparams, one.params, jax.random.key(one.seed))

        def chunk(state: PyTree, one: Batch) -> tuple[PyTree, Seen]:
            state, metrics = trainer.run(state, one.hparams, one.params)
            losses = [value for name, value in metrics._asdict().items() if name.endswith("loss")]
            finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((learner.trained(state), losses))]
            return state, Seen(metrics.frames[-1], metrics.episode_return[-1], jnp.all(jnp.stack(finite)))

        def evaluate(state: PyTree, one: Batch) -> Episodes:
            reads, scenario = (learner.learned(state), one.params), env.evaluation_params(one.params)
            return jax.vmap(lambda key: play_episode(env, scenario, policy, reads, key))(evaluation_keys(episodes))

        self.trainer = trainer
        self.init, self.chunk, self.measure = init, chunk, evaluate
        self.local = devices()
        self.mesh = jax.make_mesh((len(self.local),), ("lane",), (AxisType.Auto,), devices=self.local)
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch([run]))
        state = jax.eval_shape(init, one)
        self._functions: list[tuple[Callable[..., Any], tuple[PyTree, ...]]] = [
            (init, (one,)),
            (chunk, (state, one)),
            (evaluate, (state, one)),
        ]
        traced = [jax.make_jaxpr(function)(*given) for function, given in self._functions]
        needed = max(map(peak_bytes, traced))
        check_memory(f"a run of {run.algorithm} on {env.name}", needed)
        self.at_once = self._room(needed, most)
        self.size = len(self.local) * self.at_once
        self.bytes = needed * self.size
        check_memory(f"{self.size} runs at once of {run.algorithm} on {env.name}", self.bytes)
        first, each, measured = map(operations, traced)
        self.seconds = (first + trainer.num_chunks * (each + measured)) / OPERATIONS

    def _room(self, needed: int, most: int) -> int:
        """Lanes at once on a device."""
        if self.local[0].platform == "cpu":
            return 1
        about = self.local[0].memory_stats() or {}
        room = min(SHARE * about.get("bytes_limit", limit()), limit())
        return max(1, min(int(room / max(needed, 1)), -(-most // len(self.local))))

    @functools.cached_property
    def _programs(self) -> list[Any]:
        spec, at_once = PartitionSpec("lane"), self.at_once
        sharding = NamedSharding(self.mesh, spec)

        def spread(function: Callable[..., Any], shapes: tuple[PyTree, ...]) -> Any:
            def mapped(*given: PyTree) -> PyTree:
                return jax.lax.map(lambda one: function(*one), given, batch_size=at_once if at_once > 1 else None)

            program = jax.shard_map(mapped, mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False)
            given = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype, sharding=sharding), shapes
            )
            return jax.jit(program).lower(*given)

        lowered = [spread(*both) for both in self._functions]
        with ThreadPoolExecutor() as pool:  # XLA compiles outside the GIL: the longest hides the others
            return list(pool.map(lambda program: program.compile(), lowered))

    def compile(self) -> None:
        """Have the programs ready."""
        _ = self._programs

    def given(self, runs: Sequence[RunConfig]) -> Batch:
        """What a call is given for runs of the group, at most `size`; the last fills the lanes that are left."""
        return batch([*runs, *[runs[-1]] * (self.size - len(runs))])

    def start(self, given: Batch) -> PyTree:
        """The states before training, leaves [lane]."""
        return self._programs[0](given)

    def advance(self, state: PyTree, given: Batch) -> tuple[PyTree, Seen]:
        """The states after another chunk, and what is known then, leaves [lane]."""
        state, seen = self._programs[1](state, given)
        return state, jax.tree.map(np.asarray, seen)

    def evaluate(self, state: PyTree, given: Batch) -> Episodes:
        """Episodes of the evaluation scenario, leaves [lane, episode]."""
        return jax.tree.map(np.asarray, self._programs[2](state, given))

    def __call__(self, runs: Sequence[RunConfig], report: Callable[[int], None] = lambda chunks: None) -> list[Outcome]:
        """Train and measure runs of the group; a lane depends on its own run alone.

        Args:
            runs: At most `size`.
            report: Called with the number of chunks done, after each.
        """
        given = self.given(runs)
        state = self.start(given)
        seen: list[Seen] = []
        curve: list[np.ndarray] = []
        for done in range(self.trainer.num_chunks):
            state, after = self.advance(state, given)
            played = self.evaluate(state, given)
            seen.append(after)
            curve.append(np.mean(played.episode_return, axis=-1))
            report(done + 1)
        return [
            Outcome(
                jax.tree.map(lambda x, i=i: x[i], played),
                np.array([returns[i] for returns in curve]),
                np.array([after.frames[i] for after in seen]),
                float(seen[-1].training_return[i]),
                not all(after.finite[i] for after in seen),
            )
            for i in range(len(runs))
        ]


def batch(runs: Sequence[RunConfig]) -> Batch:
    """What the lanes of runs of a group are given."""

    def stacked(*leaves: Any) -> np.ndarray:
        array = np.stack([np.asarray(leaf) for leaf in leaves])
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))

    hparams = jax.tree.map(stacked, *(as_arrays(run.hparams) for run in runs))
    params = jax.tree.map(stacked, *(run.make_env()[1] for run in runs))
    return Batch(hparams, params, jnp.array([run.seed for run in runs], jnp.uint32))
