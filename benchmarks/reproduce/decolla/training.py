"""What is learned for Figs. 5 and 6 of Huang et al. 2022 (DeColla), by DRL-ES and by its REINFORCE alone ("DRL")."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, override

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Int

from algos import drl_es
from algos.actor import actor_policy
from algos.run_config import as_arrays
from benchmarks.harness.experiments import rounded
from benchmarks.harness.results import RESULTS
from benchmarks.reproduce.decolla.inference import alone, stacked, together
from benchmarks.reproduce.decolla.readings import BANDWIDTHS, DEVICES, MBPS, READINGS, USAGE, USAGES, Reading
from mec_jax import make
from mec_jax.contracts import Problem
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.envs.neuron_allocation import Params as AloneParams
from mec_jax.envs.neuron_sharing import NeuronSharing
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.observations import Block, ObservationTable
from mec_jax.physics.neuron_allocation import Devices
from mec_jax.solvers import neuron_allocation as solvers

EPISODES = 16
"""Of each evaluation, as in `benchmarks.learning.curves`; the rulers play the same ones."""
SLOTS = 100
"""The paper's M_c."""

type Trained = tuple[Any, Any]
"""What is learned, and the environment's parameters, as policies read them."""


def few(config: drl_es.Config, iterations: int) -> drl_es.Config:
    """Few episodes an iteration, where runs are many or an episode is long; one chunk."""
    return dataclasses.replace(
        config, num_iterations=iterations, updates_per_chunk=iterations, fitness_episodes=2, starts=2, episodes=8
    )


def slowdown_of_piece(env: Problem, params: Any) -> float:
    """The mean slowdown over minus the return."""
    return float(params.reference_slowdown / env.num_decisions(params))  # type: ignore[attr-defined]


class Learner:
    """Runs of DRL-ES in one environment side by side: every scenario with every seed."""

    def __init__(
        self, env: Problem, config: drl_es.Config, hparams: drl_es.HParams, scenarios: Sequence[Any], seeds: int
    ) -> None:
        trainer = drl_es.make_trainer(env, config)
        self.chunks, self.frames = trainer.num_chunks, trainer.num_frames
        self.policy = actor_policy(env, config, drl_es.ALGORITHM.deterministic)
        self._params = stacked(scenarios)
        self._hparams = as_arrays(hparams)
        each = jax.vmap(jax.vmap(trainer.init, (None, None, 0)), (None, 0, None))
        self.state = jax.jit(each)(self._hparams, self._params, jax.vmap(jax.random.key)(jnp.arange(seeds)))
        self._run = jax.jit(jax.vmap(jax.vmap(trainer.run, (0, None, None)), (0, None, 0)))
        keys = evaluation_keys(EPISODES)

        def score(state: Any, params: Any) -> Array:
            played = play_episodes(env, params, self.policy, (drl_es.learned(state), params), keys)
            return jnp.mean(played.episode_return)

        self._score = jax.jit(jax.vmap(jax.vmap(score, (0, None)), (0, 0)))

    def go_on(self) -> None:
        """A chunk of all runs."""
        self.state, _ = jax.block_until_ready(self._run(self.state, self._hparams, self._params))

    def returns(self) -> np.ndarray:
        """Mean return of the likeliest actions, [scenario, seed]."""
        return np.asarray(self._score(self.state, self._params))

    def learned(self, scenario: int, seed: int) -> Any:
        """Of one run."""
        return jax.tree.map(lambda x: x[scenario, seed], drl_es.learned(self.state))


# Fig. 5


def played_rulers(env: NeuronAllocation, params: AloneParams) -> dict[str, float]:
    """Mean slowdowns of the rulers in the episodes of the curves."""
    episodes = solvers.rulers(env, params, evaluation_keys(EPISODES)).episodes
    scale = slowdown_of_piece(env, params)
    return {name: rounded(-scale * np.mean(played.episode_return)) for name, played in episodes.items()}


@dataclass(frozen=True)
class Curve:
    """Curves of `benchmarks.learning.curves`, whose first iterations are run again and evaluated more often."""

    name: str
    env_id: str
    preset: str
    early: int = 100  # iterations that are run again
    chunk: int = 2  # iterations between their evaluations
    learning: str = "learning"  # folder of the curves in the results

    def run(self, folder: Path) -> dict[str, Any]:
        """Learn and join.

        Returns:
            `iterations` and `frames` [evaluation] from 0 on, `slowdown` [seed, evaluation], and that of the `rulers`.

        Raises:
            ValueError: If the curves are not there.
        """
        file = RESULTS / self.learning / f"drl_es_{self.preset}_{self.env_id}.json"
        try:
            kept = json.loads(file.read_text())
        except FileNotFoundError:
            raise ValueError(f"no {file}: run python -m benchmarks.learning.curves --missing first") from None
        env, params = make(self.env_id)
        config, hparams, _ = drl_es.PRESETS[self.preset]
        late, curve = np.array(kept["frames"]), np.array(kept["curve"])
        each = late[0] / kept["config"]["updates_per_chunk"]  # frames of an iteration
        learner = Learner(
            env, dataclasses.replace(config, updates_per_chunk=self.chunk), hparams, [params], seeds=len(curve)
        )
        early = [learner.returns()[0]]
        for _ in range(self.early // self.chunk):
            learner.go_on()
            early.append(learner.returns()[0])
        later = late > self.early * each
        iterations = np.concatenate([self.chunk * np.arange(len(early)), late[later] / each])
        returns = np.concatenate([np.stack(early, axis=1), curve[:, later]], axis=1)
        return {
            "iterations": rounded(iterations),
            "frames": rounded(iterations * each),
            "slowdown": rounded(-slowdown_of_piece(env, params) * returns),
            "rulers": played_rulers(env, params),
        }


class ManySlots(NeuronAllocation):
    """The testbed as a network of `SLOTS` outputs sees it: slots without a device are empty, and cannot be chosen.

    `NeuronAllocation` with so many devices of which three are there is the same, and simulates all of them.
    """

    @property
    @override
    def table(self) -> ObservationTable:
        common, slots = super().table.blocks
        return ObservationTable((common, Block(slots.fields, slots.of, SLOTS)))

    @override
    def action_space(self, params: AloneParams) -> spaces.Discrete:
        return spaces.Discrete(SLOTS)

    @override
    def valid_action(self, action: Int[Array, ""], present: Array) -> Int[Array, ""]:
        return super().valid_action(jnp.where(action < self.num_devices, action, 0), present)

    @override
    def device_quantities(
        self, devices: Devices, present: Array, informed: Array, queue: Mapping[str, Array]
    ) -> dict[str, Array]:
        found = super().device_quantities(devices, present, informed, queue)
        return {name: jnp.pad(column, (0, SLOTS - self.num_devices)) for name, column in found.items()}


@dataclass(frozen=True)
class PaperSettings:
    """Fig. 5 with what the paper gives: learning rate .002, gamma 1, 100 slots of which three are there, C = 10."""

    name: str
    children: int = 10
    population: Literal["theta", "carried"] = "theta"
    iterations: int = 300
    chunk: int = 10
    seeds: int = 5
    fitness_episodes: int = 2
    starts: int = 2
    episodes: int = 4

    def run(self, folder: Path) -> dict[str, Any]:
        """Learn; what is returned is as of `Curve`."""
        env, testbed = ManySlots(num_devices=DEVICES), NeuronAllocation(num_devices=DEVICES)
        config = drl_es.Config(
            num_iterations=self.iterations,
            children=self.children,
            population=self.population,
            fitness_episodes=self.fitness_episodes,
            starts=self.starts,
            episodes=self.episodes,
            updates_per_chunk=self.chunk,
            normalise_observation=False,  # logarithms already, of similar size; and most entries are always 0
        )
        params = env.default_params
        hparams = drl_es.HParams(lr=2e-3, gamma=1.0, final_lr=1.0)
        learner = Learner(env, config, hparams, [params], self.seeds)
        returns = [learner.returns()[0]]
        for _ in range(learner.chunks):
            learner.go_on()
            returns.append(learner.returns()[0])
        iterations = self.chunk * np.arange(len(returns))
        return {
            "iterations": iterations.tolist(),
            "frames": (iterations * learner.frames // self.iterations).tolist(),
            "slowdown": rounded(-slowdown_of_piece(env, params) * np.stack(returns, axis=1)),
            "rulers": played_rulers(testbed, testbed.default_params),
        }


@dataclass(frozen=True)
class OnMedium:
    """DRL-ES and DRL on the testbed when devices exchange over another medium, after few iterations."""

    name: str
    medium: Literal["half_duplex", "shared"]
    preset: str
    iterations: int = 60
    seeds: int = 5

    def run(self, folder: Path) -> dict[str, Any]:
        """Learn and evaluate.

        Returns:
            By reading `slowdown` [seed] and of the `rulers`.
        """
        env = NeuronAllocation(num_devices=DEVICES, medium=self.medium)
        config, hparams, _ = drl_es.PRESETS[self.preset]
        scenarios = {name: exchanging(env, reading) for name, reading in READINGS.items() if reading.decolla_bits}
        learner = Learner(env, few(config, self.iterations), hparams, list(scenarios.values()), self.seeds)
        learner.go_on()
        return {
            name: {
                "slowdown": rounded(-slowdown_of_piece(env, params) * returns),
                "rulers": played_rulers(env, params),
            }
            for (name, params), returns in zip(scenarios.items(), learner.returns(), strict=True)
        }


# Fig. 6


def exchanging(env: Any, reading: Reading, **numbers: Any) -> Any:
    """The environment's parameters in a reading, all links alike."""
    link = reading.bandwidth * MBPS
    given = {"bandwidth_low": link, "bandwidth_high": link} | numbers
    return env.params(bits_per_element=reading.decolla_bits, resend_input=reading.resend, **given)


@dataclass(frozen=True)
class LearnedAlone:
    """Policies for one request, learned over all bandwidths and usages of Figs. 6a to 6c."""

    name: str
    iterations: int = 100
    seeds: int = 5
    bandwidths: tuple[float, ...] = BANDWIDTHS  # Mbit/s
    usages: tuple[float, ...] = USAGES

    def run(self, folder: Path) -> dict[str, Any]:
        """Learn and play.

        Returns:
            By reading and then axis, "bandwidth" or "usage", `latency` (s) and `variance` (of use) [point, seed].
        """
        env = NeuronAllocation(num_devices=DEVICES)
        config, hparams, _ = drl_es.PRESETS["slots"]
        links = {"bandwidth_low": min(self.bandwidths) * MBPS, "bandwidth_high": max(self.bandwidths) * MBPS}
        usages = {"usage_low": min(self.usages), "usage_high": max(self.usages)}
        scenarios = [exchanging(env, reading, **links, **usages) for reading in READINGS.values()]
        learner = Learner(env, few(config, self.iterations), hparams, scenarios, self.seeds)
        learner.go_on()
        found: dict[str, Any] = {}
        for place, (name, reading) in enumerate(READINGS.items()):
            points = {
                "bandwidth": [(bandwidth * MBPS, USAGE) for bandwidth in self.bandwidths],
                "usage": [(reading.bandwidth * MBPS, usage) for usage in self.usages],
            }
            found[name] = {}
            for axis, pairs in points.items():
                played = [
                    alone(
                        env,
                        reading,
                        np.array([pair[0] for pair in pairs]),
                        np.array([pair[1] for pair in pairs]),
                        learner.policy,
                        partial(_with_params, learner.learned(place, seed)),
                    )
                    for seed in range(self.seeds)
                ]
                found[name][axis] = {
                    "latency": rounded(np.stack([one.latency for one in played], axis=1)),
                    "variance": rounded(np.stack([one.variance for one in played], axis=1)),
                }
        return {"learned": found, "frames": learner.frames}


def _with_params(learned: Any, params: Any) -> Trained:
    return learned, params


@dataclass(frozen=True)
class LearnedTogether:
    """Policies for several requests at once, learned on the testbed's usages: Fig. 6d."""

    name: str
    tasks: int
    iterations: int = 60
    seeds: int = 5

    def run(self, folder: Path) -> dict[str, Any]:
        """Learn and play.

        Returns:
            By reading, [seed] each: s that each device is `busy` [seed, device], `end` (s) of all, mean `latency` (s).
        """
        env = NeuronSharing(num_requesters=self.tasks, num_devices=DEVICES)
        config, hparams, _ = drl_es.PRESETS["sharing"]
        scenarios = [exchanging(env, reading) for reading in READINGS.values()]
        learner = Learner(env, few(config, self.iterations), hparams, scenarios, self.seeds)
        learner.go_on()
        found = {}
        for place, (name, reading) in enumerate(READINGS.items()):
            played = [
                together(env, reading, learner.policy, partial(_with_params, learner.learned(place, seed)))
                for seed in range(self.seeds)
            ]
            found[name] = {field: rounded([getattr(one, field) for one in played]) for field in played[0]._fields}
        return {"learned": found, "frames": learner.frames}
