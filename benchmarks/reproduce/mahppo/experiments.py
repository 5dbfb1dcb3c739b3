"""What is run for Hao et al. 2022: training programs, rulers and random policies, over seeds and points."""

import dataclasses
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from algos.mahppo import Config, HParams, make_policy, make_trainer
from algos.run_config import as_arrays
from benchmarks.harness.experiments import NotMeasured, rounded
from benchmarks.harness.results import write_result
from benchmarks.learning.codec_tables import OUT, PROFILES, JaladRow, read_rows
from benchmarks.learning.curves import Task, train
from mec_jax.contracts import Episodes
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params
from mec_jax.episodes import evaluation_keys, play_episode, play_episodes
from mec_jax.profiles import load_profile
from mec_jax.solvers.offloading import baselines, best_static, static
from mec_jax.solvers.offloading.plans import best_known

EVALUATION_EPISODES = 16
"""After every chunk of a training."""

FINAL_ROUNDS = 4
"""Times as many at the end: the program of the evaluations, on further keys."""

PRESET_EPISODES = 4
"""Of each evaluation of a preset's runs, as of those in `results/learning`."""

JALAD_TABLE = OUT / "jalad.csv"
"""What `benchmarks.learning.codecs` measures."""

EPISODE_LIMIT = 200.0
"""s of simulated time after which an evaluated episode is cut off, 1 s a task: an early policy may need hours."""


def bundled_content(name: str) -> dict[str, Any]:
    """What the file of a bundled profile says."""
    return json.loads((resources.files("mec_jax.profiles") / "data" / f"{name}.json").read_text())


@dataclass(frozen=True)
class Surrogate:
    """JALAD's compression (8-bit quantisation, then entropy coding) where the authors' autoencoder was.

    Neither the sizes nor the times behind the paper's JALAD are public, so that its numbers are stated here.
    """

    entropy_ratio: float = 2.0
    """8-bit size over coded size. After a ReLU about half of the values are zero: 1 bit says which, and the others
    keep some 6 bits, which makes 1 + 6 / 2 = 4 of 8 bits. Deeper features are sparser; one number for all."""
    coder_rate: float = 20e6
    """bit/s of 8-bit features that the UE codes. Assumed: the round number at which, as section 6.2 says, the cuts of
    ResNet18 mostly cost the UE more time than the whole network (20 Mbit/s: two cuts clearly, two about as much)."""
    coder_power: float = 1.0
    """W while coding. Assumed: one busy core of four, above standby, in a 5 W mode."""

    def profile(self, name: str) -> dict[str, Any]:
        """The bundled profile `name` with this compression, in the format of a profile file."""
        data = bundled_content(name)
        for cut in data["cuts"]:
            quantised = 8 * np.prod(cut["feature_shape"])  # bit
            coding = float(quantised) / self.coder_rate  # s
            energy = cut["front_time_s"] * cut["front_power_w"] + coding * self.coder_power
            cut["front_time_s"] += coding
            cut["front_power_w"] = energy / cut["front_time_s"]
            cut["bits_per_element"], cut["compression_rate"] = 8, self.entropy_ratio
        data["name"] = f"jalad_{name}"
        data["description"] += "; surrogate of JALAD: 8-bit features, entropy coded at the UE"
        data["source"]["compression_rate"] = (
            f"assumed: entropy coding halves 8-bit features (ratio {self.entropy_ratio:g})"
        )
        data["source"]["coding"] = (
            f"assumed: {self.coder_rate:g} bit/s of 8-bit features and {self.coder_power:g} W, added to the front"
        )
        return data


@dataclass(frozen=True)
class Measured:
    """JALAD as measured on real features (`mec_jax.split.jalad`), where the surrogate has numbers that are assumed.

    Bits an element and the coder's speed are those of the same cut of a network trained on small images; the number of
    elements, and the front before the coder, are those of the bundled profile. So the speed is that of the machine that
    measured, and a UE's is a fraction of it, which the paper leaves open.
    """

    slowdown: float = 1.0
    """Times as long as on the machine that measured. A Cortex-A57 of the Jetson Nano is several times slower than a
    server's core: verdicts are to be given over a range."""
    coder_power: float = 1.0
    """W while coding. Assumed, as the surrogate's."""
    data_set: str = "fashion-mnist"
    side: int = 32

    def rows(self, name: str) -> dict[str, JaladRow]:
        """What was measured, by cut.

        Raises:
            NotMeasured: If not all cuts of the profile were.
        """
        rows = jalad_rows(read_rows(JALAD_TABLE, JaladRow), name, self.data_set, self.side)
        if not rows:
            raise NotMeasured(f"JALAD's sizes on {name}: python -m benchmarks.learning.codecs measures them")
        return rows

    def profile(self, name: str) -> dict[str, Any]:
        """The bundled profile `name` with this compression, in the format of a profile file.

        Raises:
            NotMeasured: As `rows`.
        """
        data = bundled_content(name)
        rows = self.rows(name)
        for cut in data["cuts"]:
            row = rows[cut["name"]]
            coding = self.slowdown * coding_time(row, math.prod(cut["feature_shape"]))
            energy = cut["front_time_s"] * cut["front_power_w"] + coding * self.coder_power
            cut["front_time_s"] += coding
            cut["front_power_w"] = energy / cut["front_time_s"]
            cut["bits_per_element"], cut["compression_rate"] = 32, 32 * row.elements / row.bits
        data["name"] = f"jalad_measured_{self.slowdown:g}_{name}"
        data["description"] += "; JALAD as measured: 8-bit features, Huffman coded at the UE"
        where = f"{self.data_set} at {self.side} x {self.side} (benchmarks/results/codecs/jalad.csv)"
        data["source"]["compression_rate"] = f"measured: mean size of Huffman coded 8-bit features of {where}"
        data["source"]["coding"] = (
            f"measured: time an element on the machine named there, of {where}, times {self.slowdown:g}; assumed: "
            f"{self.coder_power:g} W; added to the front"
        )
        return data


def jalad_rows(rows: Iterable[JaladRow], name: str, data_set: str, side: int) -> dict[str, JaladRow]:
    """Of the bundled profile `name`, in the order of its cuts; nothing if one is missing."""
    found = {
        row.cut: row for row in rows if (PROFILES.get(row.network), row.data_set, row.side) == (name, data_set, side)
    }
    cuts = load_profile(name).points[1:-1]
    return {cut: found[cut] for cut in cuts} if set(cuts) <= found.keys() else {}


def coding_time(row: JaladRow, elements: int) -> float:
    """s of quantising and coding so many elements, if it takes as long an element as where it was measured."""
    return (row.quantise_s + row.code_s) * elements / row.elements


@dataclass(frozen=True)
class Scenario:
    """An environment by its numbers."""

    num_ues: int = 5
    profile: str = "resnet18"
    jalad: Surrogate | Measured | None = None
    params: dict[str, Any] = field(default_factory=dict)  # fields of `Params` that differ from the defaults

    def make(self, folder: Path) -> tuple[MultiUEOffloading, Params]:
        """Environment and parameters; a surrogate's profile is written to `folder`, and read like a user's own."""
        profile = self.profile
        if self.jalad is not None:
            content = self.jalad.profile(self.profile)
            profile = str(folder / "profiles" / f"{content['name']}.json")
            write_result(Path(profile), json.dumps(content, indent=2) + "\n")
        env, _ = mec_jax.make("MultiUEOffloading-v0", num_ues=self.num_ues, profile=profile)
        return env, env.params(**self.params)


def evaluation(env: MultiUEOffloading, params: Params) -> Params:
    """The evaluation scenario with `EPISODE_LIMIT`."""
    return env.evaluation_params(params, max_frames=round(EPISODE_LIMIT / float(params.frame_time)))


@dataclass(frozen=True)
class Training:
    """MAHPPO at every point with every seed, in one program.

    A point replaces scalar fields of `HParams` or `Params`, all points the same ones.
    """

    name: str
    scenario: Scenario
    config: Config
    hparams: HParams
    seeds: int
    points: tuple[dict[str, float], ...] = ({},)

    def run(self, folder: Path) -> dict[str, Any]:
        """Train and evaluate.

        Returns:
            `frames` [chunk], `curves` (return, value loss, ms, mJ, cut-off share) [point, seed, chunk], where chunk 0
            is before any training (its value loss is that of the first update), and `final` [point, seed], each the
            mean over the episodes, as `costs` has it.
        """
        env, params = self.scenario.make(folder)
        trainer = make_trainer(env, self.config)
        policy, scenario = make_policy(env, self.config), evaluation(env, params)
        points = {name: jnp.array([point[name] for point in self.points]) for name in self.points[0]}
        keys = jax.vmap(jax.random.key)(jnp.arange(self.seeds))
        episode_keys = evaluation_keys(EVALUATION_EPISODES * FINAL_ROUNDS).reshape(FINAL_ROUNDS, -1)

        def numbers(point: dict[str, jax.Array]) -> tuple[HParams, Params]:
            learning: dict[str, Any] = {name: value for name, value in point.items() if hasattr(self.hparams, name)}
            physics = {name: value for name, value in point.items() if name not in learning}
            return dataclasses.replace(as_arrays(self.hparams), **learning), params.replace(**physics)

        def evaluate(actors: Any, point: dict[str, jax.Array], keys: jax.Array) -> dict[str, jax.Array]:
            beta = numbers(point)[1].beta
            play = partial(play_episode, env, scenario.replace(beta=beta), policy, (actors, params))
            return costs(jax.vmap(play)(keys), env)

        def mapped(function: Any, *axes: Any) -> Any:
            """Over points and seeds: 0 for an argument that has both, "point" or "seed", None for neither."""
            outer = tuple(0 if axis in (0, "point") else None for axis in axes)
            inner = tuple(0 if axis in (0, "seed") else None for axis in axes)
            return jax.jit(jax.vmap(jax.vmap(function, inner), outer, axis_size=len(self.points)))

        init = mapped(lambda point, key: trainer.init(*numbers(point), key), "point", "seed")
        run = mapped(lambda state, point: trainer.run(state, *numbers(point)), 0, "point")
        measure = mapped(evaluate, 0, "point", None)

        begin = time.perf_counter()
        state = init(points, keys)
        rows, losses, clock = [measure(state.actors, points, episode_keys[0])], [], []
        for _ in range(trainer.num_chunks):
            state, metrics = run(state, points)
            rows.append(jax.block_until_ready(measure(state.actors, points, episode_keys[0])))
            losses.append(np.asarray(metrics.critic_loss))  # [point, seed, update]
            clock.append(time.perf_counter())
        final = jax.tree.map(
            lambda *x: np.mean(x, axis=0), rows[-1], *(measure(state.actors, points, keys) for keys in episode_keys[1:])
        )

        curves = {name: np.stack([row[name] for row in rows], -1) for name in CURVES}
        value_loss = np.stack([losses[0][..., 0], *(loss.mean(-1) for loss in losses)], -1)
        chunk = trainer.num_frames // trainer.num_chunks
        runs = len(self.points) * self.seeds
        return {
            "frames": (chunk * np.arange(trainer.num_chunks + 1)).tolist(),
            "curves": {name: rounded(curve) for name, curve in (curves | {"value_loss": value_loss}).items()},
            "final": {name: rounded(value) for name, value in final.items()},
            "frames_per_s": runs * chunk * (len(clock) - 1) / (clock[-1] - clock[0]) if len(clock) > 1 else None,
            "compile_s": clock[0] - begin,
        }


CURVES = ("episode_return", "latency", "energy", "cut_off")
"""What is kept of the evaluations during training."""


@dataclass(frozen=True)
class Rulers:
    """Local and the best static joint action at every point; a point replaces fields of `Params`."""

    name: str
    scenario: Scenario
    points: tuple[dict[str, Any], ...] = ({},)
    objective: Literal["return", "objective"] = "return"  # what is searched for: the return, or P1

    def run(self, folder: Path) -> dict[str, Any]:
        """Search and play.

        Returns:
            By name of the ruler `costs` [point], and `actions` (cut, channel, power) [point, ue] of the best static.
        """
        env, params = self.scenario.make(folder)
        rows: dict[str, list[dict[str, Any]]] = {"Local": [], "Best static": []}
        actions = []
        keys = evaluation_keys(1)  # nothing is random in what these play
        for point in self.points:
            scenario = evaluation(env, params.replace(**env_fields(env, point)))
            local = play_episodes(env, scenario, baselines(env)["Local"], scenario, keys)
            solution = best_static(env, scenario, jax.random.key(0), self.objective)
            for name, episodes in (("Local", local), ("Best static", solution.episodes)):
                rows[name].append(costs(episodes, env))
            actions.append(solution.action)
        return {
            "rulers": {
                name: {key: rounded([row[key] for row in table]) for key in table[0]} for name, table in rows.items()
            },
            "actions": {name: rounded([getattr(x, name) for x in actions]) for name in OffloadAction._fields},
        }


def env_fields(env: MultiUEOffloading, point: dict[str, Any]) -> dict[str, jax.Array]:
    """The fields of a point in the shapes of `Params`."""
    params = env.params(**point)
    return {name: getattr(params, name) for name in point}


@dataclass(frozen=True)
class KnownPlans:
    """The best plans known of the evaluation scenario (`mec_jax.solvers.offloading.plans`)."""

    name: str
    profiles: tuple[str, ...]
    sizes: tuple[int, ...]  # N

    def run(self, folder: Path) -> dict[str, Any]:
        """Look them up.

        Returns:
            `plans` by profile and N, where there is one: `latency` (s) and `energy` (J) per task.
        """
        plans: dict[str, dict[str, dict[str, float]]] = {profile: {} for profile in self.profiles}
        for profile in self.profiles:
            for n in self.sizes:
                env, params = Scenario(n, profile).make(folder)
                if (known := best_known(env, env.evaluation_params(params))) is not None:
                    plans[profile][str(n)] = {"latency": rounded(known.latency), "energy": rounded(known.energy)}
        return {"plans": plans}


@dataclass(frozen=True)
class PresetRun:
    """A preset of MAHPPO with several seeds, as `benchmarks.learning.curves` runs it."""

    name: str
    preset: str
    num_ues: int
    seeds: int
    changes: dict[str, Any] = field(default_factory=dict)  # fields of its `Config`

    def run(self, folder: Path) -> dict[str, Any]:
        """Train and evaluate.

        Returns:
            As of `benchmarks.learning.curves.train`, without the machine.
        """
        task = Task("mahppo", self.preset, "MultiUEOffloading-v0", {"num_ues": self.num_ues}, self.seeds)
        found = train(task, episodes=PRESET_EPISODES, changes=self.changes)
        return {name: value for name, value in found.items() if name != "machine"}


@dataclass(frozen=True)
class CoderSpeeds:
    """The rulers, the best static one by P1, with a surrogate of JALAD whose coder runs at other speeds."""

    name: str
    scenario: Scenario
    coder_rates: tuple[float, ...]  # bit/s

    def run(self, folder: Path) -> dict[str, Any]:
        """As of `Rulers`, a point a speed."""
        assert isinstance(self.scenario.jalad, Surrogate)
        points = []
        for rate in self.coder_rates:
            cuts = dataclasses.replace(self.scenario.jalad, coder_rate=rate).profile(self.scenario.profile)["cuts"]
            points.append(_front(self.scenario.profile, cuts))
        return Rulers(self.name, self.scenario, tuple(points), "objective").run(folder)


@dataclass(frozen=True)
class CoderSlowdowns:
    """The rulers, the best static one by P1, with JALAD as measured, at UEs that code more slowly."""

    name: str
    scenario: Scenario  # with `Measured`
    slowdowns: tuple[float, ...]

    def run(self, folder: Path) -> dict[str, Any]:
        """As of `Rulers`, a point a slowdown."""
        assert isinstance(self.scenario.jalad, Measured)
        points = []
        for slowdown in self.slowdowns:
            cuts = dataclasses.replace(self.scenario.jalad, slowdown=slowdown).profile(self.scenario.profile)["cuts"]
            points.append(_front(self.scenario.profile, cuts))
        return Rulers(self.name, self.scenario, tuple(points), "objective").run(folder)


def _front(profile: str, cuts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Fields of `Params` that take the front parts of other cuts than the bundled profile's."""
    local = load_profile(profile)
    return {
        "front_time": [0.0, *(cut["front_time_s"] for cut in cuts), local.front_time[-1]],
        "front_power": [0.0, *(cut["front_power_w"] for cut in cuts), local.front_power[-1]],
    }


@dataclass(frozen=True)
class Policies:
    """Random policies, static and mixed, for Theorem 1.

    A static one repeats a joint action. A mixed one draws cut, channel and power anew in every frame, each UE from
    distributions of its own. Powers lie log-uniformly in 1e-4 to 1 W, where 50 m still carries features.
    """

    name: str
    scenario: Scenario
    static: int = 1000
    mixed: int = 500
    episodes: int = 8  # of a mixed policy; nothing is random in a static one
    seed: int = 0

    def run(self, folder: Path) -> dict[str, Any]:
        """Play.

        Returns:
            `policies`, each [policy]: `kind` 0 static and 1 mixed, mean `frames`, `finished`, `total_energy` (J),
            `makespan` (s, P1 without energy), `return_0` and `return_slope`, as the return is linear in beta, and
            the share `cut_off`.
        """
        env, params = self.scenario.make(folder)
        limits = evaluation(env, params)
        key_static, key_mixed = jax.random.split(jax.random.key(self.seed))

        def play(policy: Any, policy_params: Any, episodes: int) -> dict[str, np.ndarray]:
            def one(policy_params: Any, beta: jax.Array, key: jax.Array) -> Episodes:
                return play_episode(env, limits.replace(beta=beta), policy, policy_params, key)

            every = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
            played = jax.jit(every)(policy_params, jnp.array([0.0, 1.0]), evaluation_keys(episodes))
            free, priced = (jax.tree.map(lambda x, i=i: x[:, i], played) for i in (0, 1))
            mean = costs(free, env)
            slope = costs(priced, env)["episode_return"] - mean["episode_return"]
            names = {"makespan": "objective", "return_0": "episode_return"}
            kept = ("frames", "finished", "total_energy", "makespan", "return_0", "cut_off")
            return {name: np.asarray(mean[names.get(name, name)]) for name in kept} | {
                "return_slope": np.asarray(slope)
            }

        joint = jax.vmap(partial(_random_action, env))(jax.random.split(key_static, self.static))
        mixtures = jax.vmap(partial(_random_mixture, env))(jax.random.split(key_mixed, self.mixed))
        tables = (play(static, joint, 1), play(_mixed, mixtures, self.episodes))
        kind = np.repeat([0, 1], [self.static, self.mixed]).tolist()
        return {
            "policies": {"kind": kind}
            | {name: rounded(np.concatenate([table[name] for table in tables])) for name in tables[0]}
        }


class _Mixture(NamedTuple):
    cut_logits: jax.Array  # [ue, point]
    channel_logits: jax.Array  # [ue, channel]
    log_power: jax.Array  # [ue, 2] least and largest, of W


LOG_POWER = (np.log(1e-4), 0.0)


def _random_action(env: MultiUEOffloading, key: jax.Array) -> OffloadAction:
    cut_key, channel_key, power_key = jax.random.split(key, 3)
    ue = (env.num_ues,)
    return OffloadAction(
        jax.random.randint(cut_key, ue, 0, env.num_points),
        jax.random.randint(channel_key, ue, 0, env.num_channels),
        jnp.exp(jax.random.uniform(power_key, ue, minval=LOG_POWER[0], maxval=LOG_POWER[1])),
    )


def _random_mixture(env: MultiUEOffloading, key: jax.Array) -> _Mixture:
    cut_key, channel_key, power_key = jax.random.split(key, 3)
    sharpness = 3.0  # of the logits: most mixtures have a favourite
    ends = jax.random.uniform(power_key, (env.num_ues, 2), minval=LOG_POWER[0], maxval=LOG_POWER[1])
    return _Mixture(
        sharpness * jax.random.normal(cut_key, (env.num_ues, env.num_points)),
        sharpness * jax.random.normal(channel_key, (env.num_ues, env.num_channels)),
        jnp.sort(ends, axis=1),
    )


def _mixed(mixture: _Mixture, observation: jax.Array, key: jax.Array) -> OffloadAction:
    cut_key, channel_key, power_key = jax.random.split(key, 3)
    low, high = mixture.log_power.T
    return OffloadAction(
        jax.random.categorical(cut_key, mixture.cut_logits),
        jax.random.categorical(channel_key, mixture.channel_logits),
        jnp.exp(low + (high - low) * jax.random.uniform(power_key, low.shape)),
    )


def costs(episodes: Episodes, env: MultiUEOffloading) -> dict[str, jax.Array]:
    """Means over the last axis: the fields of `Episodes` but `terminated`, `total_energy` (J), `cut_off` (share)."""
    table = episodes.columns()
    table["total_energy"] = episodes.energy * episodes.finished
    table["cut_off"] = ~table.pop("terminated")
    return {name: jnp.mean(value.astype(episodes.energy.dtype), -1) for name, value in table.items()}
