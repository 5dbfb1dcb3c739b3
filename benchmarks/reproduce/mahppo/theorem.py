"""Theorem 1 of Hao et al. 2022: P2 in place of P1, tried on random and trained policies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.claims import Claim
from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import Status, Verdict, by_point, together

BETAS = (1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.47, 1.0, 10.0, 100.0, 1000.0)
"""At which Theorem 1 is tried."""

SMALL_BETA, LARGE_BETA = 0.01, 1.0
"""What counts as small (at most) and large (at least) there."""

RARE = 0.05
"""Share of pairs in the wrong order that still counts as "generally valid"."""

GOOD = 0.1
"""Share of the policies, by P1, among which a trained policy would be found."""


@dataclass(frozen=True)
class Pool:
    """Policies whose episodes all ended, [policy]: what Theorem 1 is tried on."""

    kind: np.ndarray  # 0 random static, 1 random mixture, 2 trained
    frames: np.ndarray
    tasks: np.ndarray
    makespan: np.ndarray  # s
    energy: np.ndarray  # J
    return_0: np.ndarray  # with the reward of eq. 12 at beta = 0; NaN of trained ones
    return_slope: np.ndarray  # and what it gains a unit of beta; NaN of trained ones

    def p1(self, beta: float) -> np.ndarray:
        """Eq. 10, s."""
        return self.makespan + beta * self.energy

    def p2(self, beta: float, frame_time: float = 0.5) -> np.ndarray:
        """Eq. 11, s."""
        return (frame_time * self.frames + beta * self.energy) / (self.tasks / self.frames)

    def cumulative_cost(self, beta: float) -> np.ndarray:
        """Minus the return."""
        return -(self.return_0 + beta * self.return_slope)


def pool(results: Results) -> Pool:
    """The random policies, and those trained at N = 5 as far as there are any."""
    columns = {name: np.array(column, float) for name, column in results["policies"]["policies"].items()}
    names = ("kind", "frames", "finished", "makespan", "total_energy", "return_0", "return_slope")
    tables = [np.stack([columns[name] for name in names])[:, columns["cut_off"] == 0]]
    for name in sorted({"mahppo_resnet18_n5", "beta"} & results.keys()):
        beta = np.array([[point.get("beta", 0.47)] for point in results[name]["experiment"]["points"]])
        frames, tasks, objective, energy, cut_off = (
            results.final(name, metric) for metric in ("frames", "finished", "objective", "total_energy", "cut_off")
        )
        unknown = np.full_like(frames, np.nan)
        trained = (np.full_like(frames, 2), frames, tasks, objective - beta * energy, energy, unknown, unknown)
        tables.append(np.stack(trained)[:, cut_off == 0])
    return Pool(*np.concatenate(tables, axis=1))


def wrong_order(proxy: np.ndarray, truth: np.ndarray, among: np.ndarray | None = None) -> float:
    """Share of the pairs that differ in the proxy and that the truth orders the other way; 0 without pairs.

    Args:
        proxy: [policy].
        truth: [policy].
        among: Pairs that count [policy, policy]; all if absent.
    """
    pairs = proxy[:, None] > proxy[None]
    if among is not None:
        pairs = pairs & among
    wrong = pairs & (truth[:, None] < truth[None])
    return float(wrong.sum()) / max(1.0, float(pairs.sum()))


def frames_apart(policies: Pool) -> np.ndarray:
    """Pairs whose numbers of frames differ by one at least, [policy, policy]."""
    return np.abs(policies.frames[:, None] - policies.frames[None]) >= 1


def best_ones(policies: Pool, beta: float) -> np.ndarray:
    """Pairs among the best `GOOD` by P1, [policy, policy]."""
    p1 = policies.p1(beta)
    good = p1 <= np.quantile(p1, GOOD)
    return good[:, None] & good[None]


def theorem_bound(results: Results) -> Verdict:
    """Share of policies with P2 >= P1; as P2 is P1 over the tasks of a frame, but for the rounding of the last one."""
    policies = pool(results)
    share = float(np.mean([policies.p2(beta) >= policies.p1(beta) for beta in BETAS]))
    per_frame = policies.tasks / policies.frames
    text = (
        f"P2 >= P1 for {100 * share:.3g} % of {len(per_frame)} policies x {len(BETAS)} values of beta. P2 is P1 (in "
        f"whole frames) divided by the tasks finished in a frame, here {per_frame.min():.2g} to {per_frame.max():.3g}"
    )
    if share in (0, 1):
        return Verdict(Status.HOLDS if share else Status.FAILS, text)
    return Verdict(Status.ONLY_WHEN, f"about one task a frame or less is finished: {text}")


def theorem_order(results: Results) -> Verdict:
    """Holds if at some small beta no pair is in the wrong order; holds only for policies with different numbers of
    frames if none of those is."""
    policies = pool(results)
    apart = frames_apart(policies)
    betas = [beta for beta in BETAS if beta <= SMALL_BETA]
    every, distinct, good = (
        [wrong_order(policies.p2(beta), policies.p1(beta), among(beta)) for beta in betas]
        for among in (lambda _: None, lambda _: apart, lambda beta: best_ones(policies, beta))
    )
    at = ", ".join(f"{beta:g}" for beta in betas)
    text = (
        f"pairs in the wrong order at beta = {at}: {percents(every)} of all, {percents(distinct)} of those at least a "
        f"frame apart, {percents(good)} among the best {100 * GOOD:.0f} % of the policies. With as many frames, P2 "
        "compares the energy alone, however small beta is, and P1 the time within the last frame too"
    )
    if min(every) == 0:
        return Verdict(Status.HOLDS, text)
    if min(distinct) == 0:
        largest = max(beta for beta, share in zip(betas, distinct, strict=True) if share == 0)
        return Verdict(Status.ONLY_WHEN, f"policies are at least a frame apart and beta is at most {largest:g}: {text}")
    return Verdict(Status.FAILS, text)


def theorem_large_beta(results: Results) -> Verdict:
    """By `RARE`."""
    policies = pool(results)
    betas = [beta for beta in BETAS if beta >= LARGE_BETA]
    every, good = (
        [wrong_order(policies.p2(beta), policies.p1(beta), among(beta)) for beta in betas]
        for among in (lambda _: None, lambda beta: best_ones(policies, beta))
    )
    names = ("all pairs", f"pairs among the best {100 * GOOD:.0f} %")
    parts = {
        name: by_point("beta", betas, [share <= RARE for share in shares], f"{percents(shares)} in the wrong order")
        for name, shares in zip(names, (every, good), strict=True)
    }
    return together(parts)


def theorem_reward(results: Results) -> Verdict:
    """Holds if the median of the cumulative cost over P2 is 1 within 1 % at every beta."""
    policies = pool(results)
    ratios = [float(np.nanmedian(policies.cumulative_cost(beta) / policies.p2(beta))) for beta in BETAS]
    orders = [wrong_order(policies.cumulative_cost(beta), policies.p1(beta)) for beta in BETAS]
    text = (
        f"minus the return of eq. 12 (with at least 0.8 tasks to a frame) is {', '.join(f'{x:.3g}' for x in ratios)} "
        f"times P2 (median) at beta = {', '.join(f'{beta:g}' for beta in BETAS)}, as it divides by the tasks of each "
        f"frame and not by their mean; it puts {percents(orders)} of the pairs in the wrong order of P1"
    )
    return Verdict(Status.HOLDS if all(abs(ratio - 1) <= 0.01 for ratio in ratios) else Status.FAILS, text)


def percents(shares: Sequence[float]) -> str:
    """Shares in percent, with commas."""
    return ", ".join(f"{100 * share:.2g}" for share in shares) + " %"


THEOREM_1: tuple[Claim[Results], ...] = (
    Claim(
        "T1a",
        "Theorem 1",
        "The objective of P2 is an upper bound of that of P1",
        "P2 is below P1 for a policy and a beta",
        theorem_bound,
    ),
    Claim(
        "T1b",
        "Theorem 1",
        "For small beta, the better of two policies in P2 is the better in P1",
        f"at every beta of at most {SMALL_BETA:g} some pair is in the wrong order",
        theorem_order,
    ),
    Claim(
        "T1c",
        "Section 4.2",
        "Generally so for large beta too",
        f"at a beta of at least {LARGE_BETA:g} more than {100 * RARE:g} % of the pairs are in the wrong order, of all "
        f"or of those among the best {100 * GOOD:g} %",
        theorem_large_beta,
    ),
    Claim(
        "T1d",
        "Section 4.3",
        "The cumulative reward is minus the objective of P2",
        "at a beta the median of their ratio differs from 1 by more than 1 %",
        theorem_reward,
    ),
)
