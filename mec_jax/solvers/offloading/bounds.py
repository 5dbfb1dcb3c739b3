"""What no policy of `MultiUEOffloading-v0` can beat: proven lower bounds on time, energy and cost.

They are linear programs over what the UEs do in total, in which those on one channel take perfect turns. See
`lower_bounds` for the proof.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array
from numpy.typing import ArrayLike
from scipy import optimize

from mec_jax.envs.offloading import MultiUEOffloading, Params
from mec_jax.episodes import evaluation_keys
from mec_jax.physics.radio import path_gain
from mec_jax.solvers.offloading.policies import start_state

_TANGENTS = 64
"""Lines that hold up the power of a rate, an exponential, from below: 0.3 % low in between at 13 bit/s/Hz."""

_GRID = 2000
"""Intervals of tasks finished in a frame, on each of which the cost bound takes the worst."""

_SAFETY = 1e-5
"""Share taken off every bound, for the tolerances of the solver and of float32 episodes."""


class LowerBounds(NamedTuple):
    """No policy has less in this episode. Each bound holds by itself; no policy need meet two of them."""

    frames: int  # to finish all tasks
    makespan: float  # s, until the last task is finished, not rounded to frames
    latency: float  # s per task, in whole frames as in the paper
    energy: float  # J per task, however long it takes
    objective: float  # s, P1 (eq. 10)
    cost: float  # minus the return


def lower_bounds(env: MultiUEOffloading, params: Params, episode_key: Array | None = None) -> LowerBounds:
    """Bounds for one episode, given its distances, numbers of tasks and first tasks.

    They hold for every policy that finishes all tasks, also one that knows all this and changes its mind at any
    moment. An episode that is cut off can cost less.

    *Channels.* At some moment let q_n be the power received from UE n on a channel over the channel's noise, Q the
    sum over those that are sending on it, and a_n = q_n / (1 + Q). The rate of n over the bandwidth W is then at
    most log(1 + q_n / (1 + Q - q_n)) = -log(1 - a_n); more interference (`all_interfere`) makes it less.

    (a) -log(1 - a) is convex in a, 0 at 0 and log(1 + Q) at Q / (1 + Q). So rate_n <= s_n W log(1 + Q) with
    s_n = q_n / Q: nobody loses if the UEs take turns, n with a share s_n of the time in which it is received with
    Q, and that takes the same energy. In any stretch of time let n send b_n bits and have turns of S_n seconds,
    the integral of s_n. That is no more than the time n sends, and all S_n together are no more than the stretch.
    By Jensen's inequality, as S (2^(b / (W S)) - 1) is jointly convex, n's energy is at least
    noise / gain_n S_n (2^(b_n / (W S_n)) - 1).

    (b) Also rate_n <= W log(1 + q_n), and the rates together are at most W max_k k log(1 + q / (1 + (k - 1) q)), q
    being the largest q_n possible: at a given Q the sum of -log(1 - a_n) is convex, so on a_n <= q / (1 + Q) it is
    largest where k UEs are at that limit and one has the rest r / (1 + Q), 0 <= r <= q. There it is
    (k + 1) log(1 + k q + r) - k log(1 + (k - 1) q + r) - log(1 + k q), whose derivative has the sign of
    1 - q + r: it falls, then rises, and is largest at r = 0 or r = q, where k or k + 1 are at the limit.

    *Program.* A UE has one task in hand at a time and either computes or sends: its seconds of both add up to at
    most the makespan T. Of its tasks after the first, which is given, let y_b be at point b, fractions allowed.
    All this is linear in T, y, b and S but for the energy, which tangents bound from below. The least T of this
    program bounds the makespan and, in whole frames, the latency; its least T + beta * energy bounds P1, as the
    longest time of a UE is the makespan. The least energy per bit is that of a vanishing rate, noise ln 2 / (W
    gain), so the energy is at least the sum over tasks of the least front energy + bits * that.

    *Cost.* See `_least_cost`.

    Args:
        env: The environment.
        params: Its parameters, not traced; any `paper_reward` and `all_interfere`.
        episode_key: Key of the episode; the first of `evaluation_keys` if absent. It matters if the scenario is
            random.

    Raises:
        ValueError: If the linear program cannot be solved: the parameters are out of all proportion.
    """
    program = _Program(env, params, evaluation_keys(1)[0] if episode_key is None else episode_key)
    makespan = (1 - _SAFETY) * program.least(time_weight=1, energy_weight=0).fun
    frame_time, beta = float(params.frame_time), float(params.beta)
    frames = max(1, math.ceil(makespan / frame_time))
    trade_off = program.least(time_weight=1, energy_weight=beta).fun + beta * program.first_energy
    tasks = float(program.tasks.sum())
    return LowerBounds(
        frames=frames,
        makespan=makespan,
        latency=frames * frame_time * env.num_ues / tasks,
        energy=(1 - _SAFETY) * program.energy_of_slow_sending() / tasks,
        objective=(1 - _SAFETY) * trade_off,
        cost=(1 - _SAFETY) * _least_cost(program, params, frames),
    )


def least_energy(env: MultiUEOffloading, params: Params, frames: int, episode_key: Array | None = None) -> float:
    """Lower bound of the energy per task, J, of any policy that is done within so many frames (see `lower_bounds`).

    Args:
        env: The environment.
        params: Its parameters, not traced.
        frames: Number of frames.
        episode_key: Key of the episode.

    Raises:
        ValueError: If no policy can be done by then, or the linear program cannot be solved.
    """
    program = _Program(env, params, evaluation_keys(1)[0] if episode_key is None else episode_key)
    solution = program.least(time_weight=0, energy_weight=1, makespan=frames * float(params.frame_time))
    return (1 - _SAFETY) * (solution.fun + program.first_energy) / float(program.tasks.sum())


class _Program:
    """The linear program of `lower_bounds`: bits in Mbit, times in s, energies in J, all in float64."""

    def __init__(self, env: MultiUEOffloading, params: Params, episode_key: Array) -> None:
        def number(x: Any) -> np.ndarray:
            return np.asarray(x, np.float64)

        state = start_state(env, params, episode_key)
        ue = np.arange(env.num_ues)
        self.tasks = number(state.tasks_given)  # [ue]
        self.time = number(params.front_time)  # [ue, point] s
        self.energy = self.time * number(params.front_power)  # [ue, point] J
        self.bits = number(params.feature_bits) / 1e6  # [ue, point] Mbit
        self.first = ue, np.asarray(state.cut)
        self.first_energy = float(self.energy[self.first].sum())
        bandwidth = number(params.bandwidth) / 1e6  # [channel] MHz
        gain = path_gain(number(state.distance), number(params.path_loss))
        self.noise = number(params.noise) / gain[:, None]  # [ue, channel] W to send in order to be heard like noise
        received = number(params.power_max)[:, None] / self.noise  # [ue, channel] at most, over the noise
        self.rate = bandwidth * np.log2(1 + received)  # [ue, channel] Mbit/s alone
        self.energy_per_mbit = np.min(self.noise * np.log(2) / bandwidth, axis=1)  # [ue] J/Mbit, ever slower
        k = 1 + ue[:, None]
        together = bandwidth * np.max(k * np.log2(1 + received.max(0) / (1 + (k - 1) * received.max(0))), axis=0)

        ues, points, channels = *self.time.shape, len(bandwidth)
        sizes = [1, ues * points, *(4 * [ues * channels])]
        blocks = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        self.makespan = blocks[0]
        self.count = blocks[1].reshape(ues, points)  # tasks at each point, after the first
        sent, sending, turns, spent = (x.reshape(ues, channels) for x in blocks[2:])  # Mbit, s, s, J
        self.spent = spent
        self.variables = sum(sizes)

        whole = np.broadcast_to(self.makespan, (max(ues, channels), 1))
        # Power over noise to send x bit/s/Hz is 2^x - 1; its tangent at x holds for b Mbit in S seconds of turns as
        # (2^x - 1 - 2^x ln 2 x) S + 2^x ln 2 b / W.
        x = np.linspace(0, np.log2(1 + received.sum(0)).max(), _TANGENTS)[:, None, None]
        slope = 2**x * np.log(2)
        below = [
            self._rows([(sent, -1), (self.count, self.bits)], -self.bits[self.first]),
            self._rows([(self.count, self.time), (sending, 1), (whole[:ues], -1)], -self.time[self.first]),
            self._rows([(_column(sent), _column(1 / self.rate)), (_column(sending), -1)]),
            self._rows([(_column(turns), 1), (_column(sending), -1)]),
            self._rows([(turns.T, 1), (whole[:channels], -1)]),
            self._rows([(sent.T, 1), (whole[:channels], -together[:, None])]),
            self._rows(
                [
                    (_column(turns, _TANGENTS), _column(self.noise * (2**x - 1 - slope * x))),
                    (_column(sent, _TANGENTS), _column(self.noise * slope / bandwidth)),
                    (_column(spent, _TANGENTS), -1),
                ]
            ),
        ]
        self.below = tuple(np.concatenate(part) for part in zip(*below, strict=True))
        self.equal = self._rows([(self.count, 1)], self.tasks - 1)

    def _rows(self, terms: list[tuple[np.ndarray, ArrayLike]], right: ArrayLike = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Rows `[row, variable]` with coefficients at columns `[row, term]`, and right hand sides `[row]`."""
        matrix = np.zeros((len(terms[0][0]), self.variables))
        for columns, coefficients in terms:
            np.put_along_axis(matrix, columns, np.broadcast_to(coefficients, columns.shape), axis=1)
        return matrix, np.broadcast_to(right, len(matrix)).astype(np.float64)

    def least(self, time_weight: float, energy_weight: float, makespan: float | None = None) -> Any:
        """Solution of least weighted sum of makespan, unless that is given, and energy after the first front parts."""
        weights = np.zeros(self.variables)
        weights[self.makespan] = time_weight
        weights[self.count] = energy_weight * self.energy
        weights[self.spent] = energy_weight
        bounds = np.tile([0.0, np.inf], (self.variables, 1))
        if makespan is not None:
            bounds[self.makespan] = makespan
        solution = optimize.linprog(weights, *self.below, *self.equal, bounds, method="highs")
        if solution.status != 0:
            raise ValueError(f"no lower bound for these parameters: {solution.message}")
        return solution

    def energy_of_slow_sending(self) -> float:
        """Least energy of all tasks, J, if there is no hurry."""
        per_task = self.energy + self.bits * self.energy_per_mbit[:, None]
        return float(per_task[self.first].sum() + (self.tasks - 1) @ per_task.min(axis=1))


def _column(x: np.ndarray, repeats: int = 1) -> np.ndarray:
    return np.tile(x.reshape(-1, 1), (repeats, 1))


def _least_cost(program: _Program, params: Params, least_frames: int) -> float:
    """Lower bound of minus the return.

    *Energy in a frame.* For a makespan T let lambda_n be the program's price of a task of UE n and kappa that of a
    second of T, so that its least energy E(T) rises by lambda_n for one more task and falls by kappa for one more
    second. The inequalities of the program hold in every frame by itself, with T0 for T and the seconds computed
    and bits sent in this frame for those of whole tasks. By duality the energy of frame t is
    E_t >= (credit of frame t) - kappa T0, where the dual prices credit each second computed and each bit sent, and
    a whole task of n, at whatever point, is credited with lambda_n at least: take it for just that, its parts in
    proportion. If U_t is the credit of the tasks in flight at the start of frame t, 0 <= U_t <= sum_n lambda_n =: L,
    and G_t the sum of lambda_n over the tasks finished in it, E_t >= A_t := G_t + U_(t+1) - U_t - kappa T0. And
    E_t >= 0.

    *Cost of F frames.* Frame t costs z_t (T0 + b E_t), with z_t = 1 / max(finished tasks f_t, floor), where f_t is
    their mean over the UEs and b = beta / N (the sums and b = beta under `paper_reward`). Whatever z and theta are,
    as the U_t cancel in the sum of A_t,

        cost >= sum_t [z_t T0 + b (z_t max(A_t, 0) - z A_t - z kappa T0) - theta f_t]
                + b z sum_n lambda_n K_n + theta sum_t f_t,

    where the last two sums are known. A term of the first depends on f_t and A_t alone, and A_t + kappa T0 lies
    between N f_t times the least lambda_n, less L, and N f_t times the greatest, plus L. So F times the least term
    there can be makes the bound: over A_t it is at an end of its range or at 0, as the term is convex in A_t and
    linear beside 0, and over f_t it is taken interval by interval, each with the worst of its two ends. Of all theta
    the best is searched; z = F / sum_t f_t. With equal f_t the bound is z (F T0 + b E(F T0)).

    *All F.* It is the least of these over F >= `least_frames`, up to where the frames alone cost more:
    by Cauchy-Schwarz sum_t z_t >= F^2 / (sum_t f_t + floor F).
    """
    frame_time, floor = float(params.frame_time), float(params.finished_floor)
    ues = len(program.tasks)
    share = 1 if params.paper_reward else 1 / ues  # of f_t and E_t in their sums over the UEs
    weight = float(params.beta) * share
    finished = share * program.tasks.sum()
    fastest = np.min(program.time + program.bits / program.rate.max(axis=1)[:, None], axis=1)
    most = np.minimum(program.tasks, 1 + frame_time / np.maximum(fastest, 1e-9))  # one may be in flight
    f = np.linspace(0, share * most.sum(), _GRID + 1)
    price = 1 / np.maximum(f, floor)

    def of_frames(frames: int) -> float:
        solution = program.least(time_weight=0, energy_weight=1, makespan=frames * frame_time)
        task_price = np.maximum(solution.eqlin.marginals, 0)  # of a UE without further tasks it is any number
        kappa = -float(solution.lower.marginals[0] + solution.upper.marginals[0])
        z = frames / finished
        slack, idle = task_price.sum(), kappa * frame_time
        low = f[:-1] / share * task_price.min() - slack - idle
        high = f[1:] / share * task_price.max() + slack - idle
        energy = np.stack([low, high, np.clip(0, low, high)])
        term = np.min(price[1:] * np.maximum(energy, 0) - z * energy, axis=0) - z * idle
        term = frame_time * price[1:] + weight * term
        known = weight * z * float(task_price @ program.tasks)

        def bound(theta: float) -> float:
            return frames * float(np.min(term - np.maximum(theta * f[:-1], theta * f[1:]))) + theta * finished

        scale = (frame_time * z + abs(known) / frames) / (finished / frames)
        best = optimize.minimize_scalar(lambda theta: -bound(theta), bounds=(-4 * scale, 4 * scale), method="bounded")
        return known + bound(float(best.x))

    least, frames = math.inf, least_frames
    while frame_time * frames**2 / (finished + floor * frames) < least:
        least = min(least, of_frames(frames))
        frames += 1
    return max(0.0, float(least))
