"""Which experiments each figure of Hao et al. 2022 needs."""

import dataclasses
from collections.abc import Iterable

from algos.mahppo import PRESETS, Config
from benchmarks.harness.experiments import Experiment
from benchmarks.reproduce.mahppo.experiments import (
    CoderSlowdowns,
    CoderSpeeds,
    KnownPlans,
    Measured,
    Policies,
    PresetRun,
    Rulers,
    Scenario,
    Surrogate,
    Training,
)

FRAMES = 400_000
"""Of a run by default: what fits into about an hour, and fewer than the preset's own."""

SIZES = (3, 4, 5, 6, 7, 8, 9, 10)
NETWORK_SIZES = (3, 5, 10)  # of Fig. 13
PRESET_SIZES = (3, 5)  # of the method as printed

EVALUATIONS = 30
"""About so many in each training."""

TUNING_SHARE = 1 / 3
"""Share of the frames that a run of Fig. 9 takes: there are 70 of them, and their trends are the claim."""

TUNING = {"actor_lr": 1e-3, "critic_lr": 1e-3, "final_lr": 1.0, "final_entropy": 1.0}
"""Differences from the preset in Fig. 9: constant rates as in the paper, near the mean of the preset's."""

RATES = (1e-5, 1e-4, 1e-3, 1e-2)
REUSES = (1, 2, 4, 8, 16, 20, 40, 80)  # passes over the memory; the paper: 5, 10, 20, 40, 80
MEMORIES = (512, 1024, 2048, 4096, 8192)  # frames of an update
BETAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
CODER_RATES = (5e6, 10e6, 20e6, 50e6, 100e6, 200e6)  # bit/s

SLOWDOWNS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of a UE's coder, against the machine that measured it

LONG_FRAME = {"frame_time": 3.0, "max_steps_in_episode": 10}
"""JALAD's frames (section 6.3.1), and as many simulated seconds to a training episode as with short ones."""

LONGER = 6
"""Times as long: a run takes that many fewer frames, of as much simulated time."""


def chunked(config: Config, frames: float) -> Config:
    """The configuration for so many frames, and `EVALUATIONS` of them."""
    batch = config.num_envs * config.rollout
    updates = max(1, round(frames / batch))
    return dataclasses.replace(config, num_frames=updates * batch, updates_per_chunk=max(1, updates // EVALUATIONS))


def plan(frames: int, seeds: int, sizes: Iterable[int]) -> dict[str, list[Experiment]]:
    """What each figure needs; figures share experiments, which then have one name.

    Args:
        frames: Environment frames of a run.
        seeds: Runs of each point.
        sizes: N of Figs. 10 and 11; Fig. 13 takes those of 3, 5 and 10 that are among them.
    """
    config, hparams, _ = PRESETS["fast"]
    # Rollouts cover fewer frames where frames are longer, so that there are as many updates.
    long_config = dataclasses.replace(config, rollout=max(1, config.rollout // 4))
    surrogate = Surrogate()

    def trained(profile: str, n: int) -> list[Experiment]:
        rulers = Rulers(f"rulers_{profile}_n{n}", Scenario(n, profile))
        return [
            rulers,
            Training(f"mahppo_{profile}_n{n}", Scenario(n, profile), chunked(config, frames), hparams, seeds),
        ]

    def jalad(profile: str, n: int, compression: Surrogate | Measured = surrogate) -> Experiment:
        scenario = Scenario(n, profile, compression, LONG_FRAME)
        name = f"{'jalad' if compression is surrogate else 'measured'}_{profile}_n{n}"
        return Training(name, scenario, chunked(long_config, frames / LONGER), hparams, seeds)

    def tuning(name: str, points: tuple[dict[str, float], ...] = ({},), **changed: int) -> Experiment:
        changed_config = chunked(dataclasses.replace(config, **changed), frames * TUNING_SHARE)  # type: ignore[arg-type]
        return Training(name, Scenario(), changed_config, dataclasses.replace(hparams, **TUNING), seeds, points)

    known = KnownPlans("known_plans", ("resnet18", "vgg11", "mobilenetv2"), SIZES)
    betas = tuple({"beta": beta} for beta in BETAS)
    beta = Training("beta", Scenario(), chunked(config, frames), hparams, seeds, betas)
    sizes = sorted(sizes)
    by_size = [experiment for n in sizes for experiment in trained("resnet18", n)]
    networks = [(profile, n) for profile in ("vgg11", "mobilenetv2") for n in NETWORK_SIZES if n in sizes]
    return {
        "fig8": [
            *trained("resnet18", 5),
            jalad("resnet18", 5),
            Rulers("rulers_jalad_resnet18_n5", Scenario(5, "resnet18", surrogate, LONG_FRAME), objective="objective"),
            CoderSpeeds("coder_speed", Scenario(5, "resnet18", surrogate), CODER_RATES),
        ],
        "fig9": [
            trained("resnet18", 5)[0],
            tuning("learning_rate", tuple({"actor_lr": rate, "critic_lr": rate} for rate in RATES)),
            *(tuning(f"reuse_{epochs}", epochs=epochs) for epochs in REUSES),
            *(tuning(f"memory_{memory}", num_envs=memory // config.rollout) for memory in MEMORIES),
        ],
        "fig10": by_size,
        "fig11": [*by_size, *(jalad("resnet18", n) for n in sizes), known],
        "measured": [
            CoderSlowdowns("coder_slowdown", Scenario(5, "resnet18", Measured()), SLOWDOWNS),
            *(
                experiment
                for n in sizes
                for experiment in (trained("resnet18", n)[0], jalad("resnet18", n, Measured()))
            ),
        ],
        "fig12": [beta, Rulers("rulers_beta", Scenario(), betas)],
        "fig13": [
            *(experiment for profile, n in networks for experiment in (*trained(profile, n), jalad(profile, n))),
            known,
        ],
        "theorem1": [
            Policies("policies", Scenario(params={"paper_reward": True})),
            *trained("resnet18", 5),
            beta,
        ],
        "presets": [
            *(PresetRun(f"preset_paper_n{n}", "paper", n, seeds) for n in PRESET_SIZES),
            PresetRun("preset_uniform_n5", "reference", 5, seeds, {"initial": "uniform"}),
        ],
    }
