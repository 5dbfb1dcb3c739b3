"""Best known results of `MultiUEOffloading-v0`: plans, one joint action for every frame, searched on the simulator.

Once the distances, the numbers of tasks and the first tasks are drawn, an episode is deterministic. A plan that is
made for it is then as good as any policy, also one that looks at the state.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from mec_jax.contracts import Episodes, Policy
from mec_jax.envs.offloading import MIN_POWER, MultiUEOffloading, OffloadAction, Params, State
from mec_jax.episodes import evaluation_keys, play_episode, play_episodes, start_key, step_keys
from mec_jax.solvers.offloading.policies import baselines, rotate, start_state, static
from mec_jax.solvers.offloading.search import Measured, action_from_uniform, best_static, cheapest

KNOWN_PLANS = resources.files("mec_jax.solvers") / "data" / "offloading_plans.json"
"""The plans of `best_known`, written by `benchmarks.solvers.best_known`."""

Objective = Literal["return", "objective", "latency"]

COSTS: dict[str, Callable[[Episodes], Float[Array, ""]]] = {
    "return": lambda episode: -episode.episode_return,
    "objective": lambda episode: episode.objective,
    # Whole frames first, then energy, which counts less than a frame whatever it is.
    "latency": lambda episode: episode.frames + episode.energy / (1 + episode.energy),
}
"""What a search minimises, by objective."""


_UNFINISHED = 1e6
"""Cost of a plan that leaves tasks over."""


class PlanSolution(NamedTuple):
    """Best plan found."""

    plan: OffloadAction  # [frame, ue]; the last frame's action is repeated
    episode: Episodes  # played with the plan


class KnownPlan(NamedTuple):
    """A stored plan and what it reaches."""

    plan: OffloadAction  # [frame, ue]
    episode_return: float
    frames: int
    latency: float  # s per task, in whole frames as in the paper
    energy: float  # J per task


class _Clocked:
    """An environment whose observation is the number of frames played: what a plan needs to see."""

    def __init__(self, env: MultiUEOffloading) -> None:
        self.env = env
        self.measures, self.bounded, self.action_space = env.measures, env.bounded, env.action_space

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Clocked) and self.env == other.env

    def __hash__(self) -> int:
        return hash((type(self), self.env))

    def reset_env(self, key: Array, params: Params) -> tuple[Int[Array, ""], State]:
        _, state = self.env.reset_env(key, params)
        return state.time, state

    def step_env(self, key: Array, state: State, action: OffloadAction, params: Params) -> tuple[Any, ...]:
        _, state, *rest = self.env.step_env(key, state, action, params)
        return state.time, state, *rest

    def is_truncated(self, state: State, params: Params) -> Bool[Array, ""]:
        return self.env.is_truncated(state, params)


def _follow(plan: OffloadAction, frame: Int[Array, ""], key: Array) -> OffloadAction:
    return jax.tree.map(lambda x: x[jnp.minimum(frame, len(x) - 1)], plan)


def play_plan(env: MultiUEOffloading, params: Params, plan: OffloadAction, keys: Array) -> Episodes:
    """Play one whole episode per key with a plan, as `play_episodes` does with a policy.

    Args:
        env: The environment.
        params: The scenario.
        plan: `[frame, ue]`; its last action is repeated if the episode is longer.
        keys: Typed keys `[episode]`, e.g. `evaluation_keys(1)`.
    """
    return play_episodes(_Clocked(env), params, _follow, plan, keys)


@partial(jax.jit, static_argnames=("env", "policy", "frames"))
def record_plan(
    env: MultiUEOffloading, params: Params, policy: Policy, policy_params: PyTree, key: Array, frames: int
) -> OffloadAction:
    """The plan `[frame, ue]` that a policy plays in the first `frames` frames of the episode with this key."""

    def frame(carry: tuple, nothing: None) -> tuple[tuple, OffloadAction]:
        observation, state, key = carry
        key, policy_key, step_key = step_keys(key)
        action = policy(policy_params, observation, policy_key)
        observation, state, *_ = env.step_env(step_key, state, action, params)
        return (observation, state, key), action

    key, reset_key = start_key(key)
    return jax.lax.scan(frame, (*env.reset_env(reset_key, params), key), length=frames)[1]


def best_plan(
    env: MultiUEOffloading,
    params: Params,
    key: Array,
    objective: Objective = "return",
    episode_key: Array | None = None,
    starts: Sequence[OffloadAction] = (),
    frames: int = 40,
    rounds: int = 12,
    generations: int = 40,
    population: int = 256,
    spare_noise: float = 0.0,
) -> PlanSolution:
    """Search for the best plan of one episode, by evolution on the simulator.

    It starts from the baselines, the best static action, the best rotations for several weights of the energy,
    and `starts`, and is never worse than any of them (than a policy that takes more than `frames` frames: than
    its plan cut off there). Pure: to be mapped over scenarios and keys, and compiled, by the caller if need be.

    Plans breed for `rounds` rounds. The first, third and so on play one frame less than the best plan takes, at a
    high price for every task left over: at first no plan gets done in that time, but they come ever closer. The
    rounds between play two frames more than the best plan, at a low price, and polish. A horizon and a price make
    a smooth slope of what is a cliff in the return, where one task left over costs a whole frame.

    Args:
        env: The environment.
        params: The scenario.
        key: Key of the search.
        objective: `"return"` maximises the return, `"objective"` minimises P1 (eq. 10), `"latency"` the number of
            frames and, among those of the same number, the energy.
        episode_key: Key of the episode to make a plan for; the first of `evaluation_keys` if absent. It matters
            if the scenario is random.
        starts: Further plans `[frame, ue]` to start from.
        frames: Length of the plan; a longer episode repeats the last action.
        rounds: Number of rounds.
        generations: Generations of each.
        population: Plans of a generation, played at once.
        spare_noise: Share of noise to add. If it is not 0, each plan is played with and without, and the worse
            counts: a plan whose last task falls on the very end of a frame is best on paper, and worthless when
            rounding moves it.

    Raises:
        ValueError: If there is no such objective or a number is too small.
    """
    if objective not in COSTS:
        raise ValueError(f"objective is {objective!r}: it must be one of {', '.join(map(repr, COSTS))}")
    for name, number, least in (("frames", frames, 1), ("rounds", rounds, 1), ("population", population, 4)):
        if number < least:
            raise ValueError(f"{name} is {number}: it must be at least {least}")
    episode_key = evaluation_keys(1)[0] if episode_key is None else episode_key
    static_key, rotation_key, key = jax.random.split(key, 3)

    def record(policy: Policy, policy_params: PyTree) -> OffloadAction:
        return record_plan(env, params, policy, policy_params, episode_key, frames)

    plans: list[OffloadAction] = [record(policy, params) for policy in baselines(env).values()]
    budget = {
        "restarts": 1,
        "generations": generations,
        "population": population,
        "episode_keys": episode_key[None],
    }
    plans.append(record(static, best_static(env, params, static_key, **budget).action))
    # P1 has no cliffs, and beta / (3 N) weighs its energy about as the return does.
    weights = jnp.array([0, 1 / (3 * env.num_ues), 1])

    def rotation(weight: Float[Array, ""]) -> OffloadAction:
        scenario = params.replace(beta=(weight * params.beta).astype(params.beta.dtype))
        return best_static(env, scenario, rotation_key, "objective", **budget, policy=rotate).action

    plans += [jax.tree.map(lambda x: _fit(x, frames), plan) for plan in starts]
    rotations = jax.vmap(lambda weight: record(rotate, rotation(weight)))(weights)
    together = jax.tree.map(lambda rotations, *x: jnp.concatenate([rotations, jnp.stack(x)]), rotations, *plans)
    return _evolve(env, params, key, episode_key, together, objective, rounds, generations, population, spare_noise)


def _fit(column: Array, frames: int) -> Array:
    """As many frames of a plan: cut, or with the last one repeated."""
    return jnp.asarray(column)[jnp.minimum(jnp.arange(frames), len(column) - 1)]


@partial(jax.jit, static_argnames=("env", "objective", "rounds", "generations", "population", "spare_noise"))
def _evolve(
    env: MultiUEOffloading,
    params: Params,
    key: Array,
    episode_key: Array,
    plans: OffloadAction,
    objective: Objective,
    rounds: int,
    generations: int,
    population: int,
    spare_noise: float,
) -> PlanSolution:
    cost = COSTS[objective]
    clocked = _Clocked(env)
    tasks = jnp.sum(start_state(env, params, episode_key).tasks_given)
    noises = params.noise * (1 + jnp.array([0, spare_noise] if spare_noise else [0], params.noise.dtype)[:, None])

    def measure(plans: OffloadAction, horizon: Int[Array, ""] | float, price: Float[Array, ""] | float) -> Measured:
        def play(plan: OffloadAction, noise: Float[Array, " channel"]) -> Episodes:
            scenario = params.replace(noise=noise)
            return play_episode(clocked, scenario, _follow, plan, episode_key, lambda so_far: so_far.frames < horizon)

        episodes = jax.vmap(jax.vmap(play, (None, 0)), (0, None))(plans, noises)
        costs = cost(episodes) + price * (tasks - episodes.finished)
        return Measured(jnp.max(costs, axis=1), plans, episodes)

    def if_done(measured: Measured) -> Measured:
        costs = jnp.where(measured.episodes.terminated, cost(measured.episodes), _UNFINISHED)
        return measured._replace(costs=jnp.max(costs, axis=1))

    def play_round(carry: tuple[Measured, OffloadAction], numbered_key: tuple[Array, Array]) -> tuple[Any, None]:
        best, kept = carry
        number, key = numbered_key
        shorter = number % 2 == 0
        horizon = jnp.max(best.episodes.frames) + jnp.where(shorter, -1, 2)
        price = jnp.where(shorter, 500, 10) * best.costs[0] / tasks

        def generation(kept: Measured, key: Array) -> tuple[Measured, None]:
            children = _plan_children(env, params, kept.actions, population, horizon, key)
            return cheapest(_join(measure(children, horizon, price), kept), size), None

        starters = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), best.actions, kept)
        pool = cheapest(measure(starters, horizon, price), size)
        pool, _ = jax.lax.scan(generation, pool, jax.random.split(key, generations))
        return (cheapest(_join(best, if_done(pool)), 1), pool.actions), None

    size = max(population // 4, len(plans.cut))
    found = if_done(measure(plans, jnp.inf, 0.0))
    repeated = jax.tree.map(lambda x: x[jnp.arange(size) % len(x)], plans)
    numbered_keys = (jnp.arange(rounds), jax.random.split(key, rounds))
    (best, _), _ = jax.lax.scan(play_round, (cheapest(found, 1), repeated), numbered_keys)
    plan, episodes = jax.tree.map(lambda x: x[0], (best.actions, best.episodes))
    return PlanSolution(plan, jax.tree.map(lambda x: x[0], episodes))


def _plan_children(
    env: MultiUEOffloading,
    params: Params,
    parents: OffloadAction,
    number: int,
    horizon: Int[Array, ""],
    key: Array,
) -> OffloadAction:
    """Children `[number, frame, ue]` of `parents [parent, frame, ue]`, the better the more, for `horizon` frames.

    Some start like one parent and end like another; in some, two UEs swap their parts for a while; some play a
    frame twice, leave one out, or swap two. Then a few cuts and channels are drawn anew, and the logarithm of a few
    powers or of all moves by a Cauchy step.
    """
    count, frames, ues = parents.cut.shape
    keys = iter(jax.random.split(key, 14))

    def uniform(*shape: int) -> Float[Array, " *shape"]:
        return jax.random.uniform(next(keys), (number, *shape), params.power_max.dtype)

    def gather(x: Array, index: Int[Array, "number ..."], axis: int) -> Array:
        return jnp.take_along_axis(x, jnp.broadcast_to(index, x.shape), axis)

    frame, ue = jnp.arange(frames)[None, :, None], jnp.arange(ues)[None, None, :]
    mother, father = (uniform(2) ** 2 * count).astype(int).T
    first, second, cross = (uniform(3) * horizon).astype(int).T[:, :, None, None]
    operation = uniform(2)[:, :, None, None]

    from_father = (operation[:, 0] < 0.1) & (frame >= cross)
    child = jax.tree.map(lambda x: jnp.where(from_father, x[father], x[mother]), parents)

    left, right = (uniform(2) * ues).astype(int).T[:, :, None, None]
    swaps = (operation[:, 0] > 0.85) & (frame >= jnp.minimum(first, cross)) & (frame <= jnp.maximum(first, cross))
    partner = jnp.where(ue == left, right, jnp.where(ue == right, left, ue))
    child = jax.tree.map(lambda x: gather(x, jnp.where(swaps, partner, ue), 2), child)

    kind = operation[:, 1]
    source = jnp.select(
        [kind < 0.05, kind < 0.10, kind < 0.12, kind < 0.14],
        [
            jnp.where(frame == first, second, jnp.where(frame == second, first, frame)),
            jnp.where(frame == first, second, frame),
            jnp.where(frame >= first, frame + 1, frame),
            jnp.where(frame > first, frame - 1, frame),
        ],
        frame,
    )
    child = jax.tree.map(lambda x: gather(x, jnp.clip(source, 0, frames - 1), 1), child)

    def few(most: float) -> Bool[Array, "number frame ue"]:
        """Entries to change: of the frames to be played, on average one of a few numbers up to `most`."""
        chosen, level = uniform(frames, ues), uniform(1)[:, :, None]
        return chosen * (horizon * ues) < jnp.array([0, 0.5, 1, most])[(level * 4).astype(int)]

    new = action_from_uniform(env, params, uniform(frames, ues), uniform(frames, ues), uniform(frames, ues))
    new_cut, new_channel, new_power = few(3), few(3), few(jnp.inf)
    width = jnp.array([0.01, 0.05, 0.3])[(kind * 100 % 1 * 3).astype(int)]
    step = width * jnp.tan(jnp.pi * (uniform(frames, ues) - 0.5))
    power = jnp.where(new_power, child.power * jnp.exp(step), child.power)
    return OffloadAction(
        jnp.where(new_cut, new.cut, child.cut),
        jnp.where(new_channel, new.channel, child.channel),
        jnp.clip(jnp.where(new_cut & (operation[:, 1] < 0.5), new.power, power), MIN_POWER, params.power_max),
    )


def _join(*measured: Measured) -> Measured:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *measured)


def best_known(env: MultiUEOffloading, params: Params) -> KnownPlan | None:
    """The best plan known for a scenario, if it is one of those that are stored: see `KNOWN_PLANS`.

    Args:
        env: The environment.
        params: The scenario, not traced; those stored are evaluation scenarios. The truncation limit may differ.
    """
    for entry in json.loads(KNOWN_PLANS.read_text())["plans"]:
        if known_env(entry) == env and _equal(known_scenario(entry), params):
            power = jnp.asarray(entry["power"], params.power_max.dtype)
            plan = OffloadAction(jnp.asarray(entry["cut"]), jnp.asarray(entry["channel"]), power)
            found = KnownPlan(plan, entry["return"], entry["frames"], entry["latency_s"], entry["energy_j"])
            return found if found.frames <= int(params.max_steps_in_episode) else None
    return None


def known_env(entry: Mapping[str, Any]) -> MultiUEOffloading:
    """The environment of a stored plan."""
    return MultiUEOffloading(entry["num_ues"], entry["num_channels"], entry["profile"])


def known_scenario(entry: Mapping[str, Any]) -> Params:
    """The evaluation scenario of a stored plan."""
    env = known_env(entry)
    return env.evaluation_params(env.params(beta=entry["beta"]))


def _equal(scenario: Params, params: Params) -> bool:
    scenario = scenario.replace(max_steps_in_episode=params.max_steps_in_episode)

    def close(x: ArrayLike, y: ArrayLike) -> bool:
        return np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=1e-6, atol=0)

    return jax.tree.all(jax.tree.map(close, scenario, params))
