"""`mec-jax list`: what there is, what an environment's numbers mean, and what an algorithm's may be."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from algos.algorithms import algorithm, algorithms, make_env
from algos.cli.console import console
from mec_jax.parameters import Parameter
from mec_jax.ranges import ranges
from mec_jax.registry import registered_envs


@dataclass(frozen=True)
class List:
    """Show environments, algorithms, presets and DNN profiles; of an environment, its parameters and observation; of an
    algorithm, its hyper-parameters.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """An environment's id, or an algorithm's name."""

    def run(self) -> None:
        """Print them."""
        if self.name is None:
            _list_all()
        elif self.name in algorithms():
            _list_algorithm(self.name)
        else:
            _list_env(self.name)


def _list_all() -> None:
    from mec_jax.profiles import bundled_profiles
    from mec_jax.profiles.layers import NETWORKS
    from mec_jax.profiles.multi_exit import bundled_multi_exit_profiles

    for title, names in (
        ("environments", registered_envs),
        ("algorithms", algorithms()),
        *((f"presets of {name}", algorithm(name).presets) for name in algorithms()),
        ("profiles", bundled_profiles()),
        ("multi-exit profiles", bundled_multi_exit_profiles()),
        ("networks by layers, for neurons and partition games", NETWORKS),
    ):
        console.print(f"[bold]{title}[/]: {', '.join(names)}", markup=True)
    console.print("`mec-jax list ENV` shows an environment's parameters and what its observation is made of")
    console.print("`mec-jax list ALGORITHM` shows an algorithm's hyper-parameters and what they may be")


def _list_algorithm(name: str) -> None:
    learner = algorithm(name)
    table = Table("option", "default", "range", title=name, box=SIMPLE_HEAD)
    for part, kind in (("config", learner.config), ("hparams", learner.hparams)):
        defaults = kind()
        for field, allowed in ranges(kind).items():
            default = getattr(defaults, field)
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            several = "" if allowed.max_length is None else f", at most {allowed.max_length} of them"
            table.add_row(f"--{part}.{field.replace('_', '-')}", shown, allowed.words() + several)
    console.print(table)
    console.print(f"`mec-jax train {name} --help` says what they are; presets have other defaults")


def _list_env(env_id: str) -> None:
    env, _ = make_env(env_id, {}, {})
    if env_id not in registered_envs:
        raise ValueError(f"{env_id} is gymnax's: it does not say what its numbers mean")
    parameters = Table("parameter", "default", "range", "unit", "source", "what", title=env_id, box=SIMPLE_HEAD)
    for about in env.parameters().values():
        axes = f" [{', '.join(about.axes)}]" if about.axes else ""
        default = about.default if isinstance(about.default, str) else f"{about.default:g}"
        parameters.add_row(about.name + axes, default, _range(about), about.unit, about.source, about.about)
    console.print(parameters)
    table = Table(
        "of", "entries", "observation", "unit", title=f"observation, {env.table.size} numbers", box=SIMPLE_HEAD
    )
    for block in env.table.blocks:
        for field in block.fields:
            of = f"each {block.of}, {block.repeats}" if block.of else ""
            table.add_row(of, str(field.count), field.formula, field.unit)
    console.print(table)


def _range(about: Parameter) -> str:
    if about.kind is bool:
        return "True or False"
    low = "> 0" if about.least is None else f">= {about.least:g}"
    high = "" if about.most is None else f", <= {about.most:g}"
    return f"{low}{high}" + (f", >= {about.not_below}" if about.not_below else "")
