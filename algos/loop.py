"""The host loop of a run: jitted chunks, and between them progress, evaluation, logs and checkpoints."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from algos import devices, hosts
from algos.algorithms import algorithm
from algos.curves import CURVE_EPISODES
from algos.loggers import Logger, logged
from algos.run_config import RunConfig, as_arrays
from algos.runs import RunFolder
from mec_jax.contracts import Episodes
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.memory import check_memory, peak_bytes


class Progress(NamedTuple):
    """What is known after a chunk."""

    frames: int
    total_frames: int
    evaluation: Episodes  # [episode], on the evaluation scenario
    metrics: Any  # [update] of the chunk, the algorithm's `Metrics`


class Result(NamedTuple):
    """What a run leaves in memory."""

    learned: PyTree  # what the algorithm's policy reads; None where another process has it and the run had ended
    frames: int


def train(
    run: RunConfig, folder: RunFolder | None, report: Callable[[Progress], None], loggers: Collection[Logger] = ()
) -> Result:
    """Train, evaluating and saving a checkpoint after every chunk.

    A run that goes on from a checkpoint does what it would have done without the break, bit for bit: the state holds
    all that a chunk depends on, and the program is the same.

    Args:
        run: What to run.
        folder: Where to begin, and to write metrics and checkpoints. Of several processes (`algos.hosts`) that share
            the run the first has it alone, and evaluates, logs and reports alone; the others have None.
        report: Called after each chunk.
        loggers: Take the metrics of each chunk, too, and are closed in the end. TensorBoard is the folder's own.

    Raises:
        ValueError: If the losses are no longer finite, the folder cannot be written, or another process of the run has
            ended; the checkpoints before stay.
        Exception: Of a logger, as it is; the checkpoint of its chunk is written nevertheless.
    """
    with ExitStack() as ends:
        for logger in loggers:
            ends.callback(logger.close)
        return _train(run, folder, report, loggers)


def _train(
    run: RunConfig, folder: RunFolder | None, report: Callable[[Progress], None], loggers: Collection[Logger]
) -> Result:
    env, params = run.make_env()
    learner = algorithm(run.algorithm)
    trainer = learner.make_trainer(env, run.config)
    state = None if folder is None else folder.state
    frames = int(hosts.text_from_first(str(int(folder.rows[-1]["frames"]) if folder and folder.rows else 0)))
    if frames >= trainer.num_frames:
        return Result(None if state is None else learner.learned(state), frames)
    scenario = env.evaluation_params(params)
    policy = learner.make_policy(env, run.config, learner.deterministic)
    hparams, keys = as_arrays(run.hparams), evaluation_keys(CURVE_EPISODES)
    key = jax.random.key(run.seed)

    mesh = devices.mesh(run.devices)
    place = devices.whole(mesh)  # of all between two chunks
    shapes = jax.eval_shape(trainer.init, hparams, params, key)
    with devices.on(mesh):
        chunk = jax.jit(trainer.run, in_shardings=place, out_shardings=place).trace(shapes, hparams, params)
    traced = (
        chunk,
        jax.jit(trainer.init).trace(hparams, params, key),
        play_episodes.trace(env, scenario, policy, (learner.learned(shapes), params), keys),
    )
    for what, program in zip(("training", "the first state", "evaluation"), traced, strict=True):
        check_memory(f"{what} of {run.algorithm} on {env.name}", peak_bytes(program.jaxpr))
    lowered = [program.lower() for program in traced]
    with ThreadPoolExecutor() as pool:  # XLA compiles outside the GIL: the longest hides the others
        run_chunk, init, evaluate = pool.map(lambda program: program.compile(), lowered)

    state = hosts.from_first(init(hparams, params, key) if state is None else state)
    given = devices.placed(hosts.from_first((hparams, params)), place)
    while frames < trainer.num_frames:
        with hosts.together():
            new_state, metrics = hosts.waited(devices.first(run_chunk(devices.placed(state, place), *given)))
        learned = learner.learned(new_state)
        evaluation = None if folder is None else evaluate(scenario, (learned, params), keys)
        metrics, evaluation = jax.tree.map(np.asarray, (metrics, evaluation))
        losses = [value for name, value in metrics._asdict().items() if name.endswith("loss")]
        if not all(np.isfinite(x).all() for x in jax.tree.leaves((learner.trained(new_state), losses))):
            raise ValueError(f"the losses diverged after frame {frames}: lower the learning rates or the clip range")
        state, frames = new_state, int(metrics.frames[-1])
        if folder is None:
            continue
        row = _row(metrics, evaluation)
        folder.save(int(state.update), state, frames, row)
        for logger in loggers:
            logger.log(logged(row), frames)
        report(Progress(frames, trainer.num_frames, evaluation, metrics))
    if folder is not None:
        folder.finish()
    return Result(learner.learned(state), frames)


def _row(metrics: Any, evaluation: Episodes) -> dict[str, float]:
    evaluated = {f"evaluation/{name}": float(np.mean(value)) for name, value in evaluation.columns().items()}
    trained = {f"training/{name}": float(value[-1]) for name, value in metrics._asdict().items() if name != "frames"}
    return evaluated | trained
