"""An exported policy (`mec_jax.policy`) as a PyTorch module, beside the split network that it drives.

policy = load_torch_policy("policy.npz")
action = policy.act(observation)                       # the likeliest action
action = policy.act(observation, torch.Generator())    # a sample
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mec_jax.policy import AS_RETURNED, Policy, load_policy
from mec_jax.policy_about import About, numbers, refuse_no_choice
from mec_jax.policy_schema import action_class

__all__ = ["Categorical", "Gaussian", "TorchPolicy", "load_torch_policy"]


class Categorical(NamedTuple):
    """What a categorical head says: p(i) is proportional to exp(logits[i])."""

    logits: torch.Tensor  # [..., *shape, size]

    def mode(self) -> torch.Tensor:
        """The likeliest choice, [..., *shape]."""
        return self.logits.argmax(-1)

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """A random choice, [..., *shape], by the Gumbel-max trick."""
        exponential = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - exponential.log()).argmax(-1)


class Gaussian(NamedTuple):
    """What a gaussian or simplex head says, before anything is clipped or normalised."""

    mean: torch.Tensor  # [..., *shape]
    std: torch.Tensor  # [..., *shape]

    def mode(self) -> torch.Tensor:
        """The mean."""
        return self.mean

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """A random number."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.std * noise


class TorchPolicy(About, nn.Module):
    """Decides from one observation, as `mec_jax.policy.Policy` does; equal to it up to float32's rounding. It has all
    that `mec_jax.policy_about.About` has, too, such as `cuts`.

    Its parameters are the policy's arrays, so it can be trained further, exported or moved to another device.

    Args:
        policy: What `mec_jax.policy.load_policy` gives.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.metadata = policy.metadata
        network, observation = self.metadata["network"], self.metadata["observation"]
        names = sorted({name.rpartition("/")[0] for name in policy.arrays})
        # With prefixes: a ModuleDict refuses the names of its own methods.
        self.layers = nn.ModuleDict(
            {
                f"layer_{name}": _Layer(*(policy.arrays[f"{name}/{part}"] for part in ("kernel", "bias")))
                for name in names
            }
        )
        self.heads = nn.ModuleDict({f"head_{head['name']}": _HEADS[head["kind"]](head) for head in network["heads"]})
        normal = {} if observation["normalisation"] == AS_RETURNED else observation["normalisation"]
        for name, default in (("mean", 0.0), ("std", 1.0), ("clip", torch.inf)):
            self.register_buffer(f"observation_{name}", torch.tensor(normal.get(name, default), dtype=torch.float32))
        self._activation = _ACTIVATIONS[network["activation"]]

    def forward(self, observation: torch.Tensor) -> dict[str, Categorical | Gaussian]:
        """What the heads say of an observation [..., size], by name: logits, or mean and standard deviation.

        Where no choice of a head is allowed all its logits are float32's least number; only `act` refuses that.

        Raises:
            ValueError: If the observation's last axis has another size.
        """
        size, network = self.metadata["observation"]["size"], self.metadata["network"]
        if observation.shape[-1:] != (size,):
            raise ValueError(f"the observation has shape {list(observation.shape)}: give [..., {size}]")
        x = (observation.reshape(-1, size) - self.observation_mean) / self.observation_std
        x = torch.clamp(x, -self.observation_clip, self.observation_clip)
        if slots := network.get("per_slot"):
            x = _each_slot(x, **slots)
        for layer in network["trunk"]:
            x = self._activation(self._layer(layer)(x))  # [net, batch, outputs]
        said = {}
        for head in network["heads"]:
            *hidden, last = head["layers"]
            raw = x
            for layer in hidden:
                raw = self._activation(self._layer(layer)(raw))
            raw = self._layer(last)(raw).swapaxes(0, 1)  # [batch, net, outputs]
            said[head["name"]] = self._head(head["name"])(raw, observation)
        return said

    @torch.no_grad()
    def act(self, observation: Any, generator: torch.Generator | None = None) -> Any:
        """Decides.

        Args:
            observation: [..., size], finite, each entry what the policy's `observation_names` says; a tensor, or
                what NumPy can read.
            generator: Draws the action; without it the action is the likeliest one. On the policy's device.

        Returns:
            A NamedTuple like the environment's action, e.g. `OffloadAction(cut, channel, power)`, each
            [..., *shape]: int64 for a categorical head, float32 within its bounds for a gaussian one.

        Raises:
            ValueError: If the observation is not made of finite numbers, has another size or allows no choice, or the
                network overflows on it.
        """
        if not isinstance(observation, torch.Tensor):
            with np.errstate(over="ignore"):  # refused below
                observation = torch.from_numpy(numbers("the observation", observation, "fiu").astype(np.float32))
        if observation.is_complex() or observation.dtype == torch.bool:
            raise ValueError(f"the observation is of type {observation.dtype}, not made of real numbers: give numbers")
        observation = observation.to(self.observation_mean.device, torch.float32)
        if not torch.isfinite(observation).all():
            raise ValueError("the observation holds a NaN, or a number too large for float32: give finite ones")
        said = self(observation)
        for head in self.metadata["network"]["heads"]:
            if "allowed" in head:
                refuse_no_choice(head, (observation[..., head["allowed"]] > 0).numpy(force=True))
        if not all(torch.isfinite(part).all() for parts in said.values() for part in parts):
            raise ValueError("the network overflows on this observation: give it numbers like those it was trained on")
        drawn = {name: parts.mode() if generator is None else parts.sample(generator) for name, parts in said.items()}
        action = {name: self._head(name).action(value) for name, value in drawn.items()}
        return action_class(self.metadata["action"], tuple(action))(**action)

    def _layer(self, name: str) -> nn.Module:
        return self.layers[f"layer_{name}"]

    def _head(self, name: str) -> nn.Module:
        return self.heads[f"head_{name}"]


def load_torch_policy(path: str | os.PathLike[str]) -> TorchPolicy:
    """The policy of a file that `mec_jax.policy.save_policy` wrote; of any other a ValueError says what is wrong."""
    return TorchPolicy(load_policy(path))


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}
_MEANS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"linear": torch.positive, "sigmoid": torch.sigmoid}
_STDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softplus": functional.softplus,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
}


class _Layer(nn.Module):
    """One dense layer of every network: [batch, inputs] or [net, batch, inputs] to [net, batch, outputs]."""

    def __init__(self, kernel: Any, bias: Any) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.tensor(kernel))  # [net, inputs, outputs]
        self.bias = nn.Parameter(torch.tensor(bias))  # [net, outputs]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.kernel + self.bias[:, None]


def _each_slot(x: torch.Tensor, common: int, slots: int, features: int) -> torch.Tensor:
    """What a network reads that scores slots, a row for each slot of each observation."""
    own = x[:, common:].reshape(-1, features)
    return torch.cat([x[:, :common].repeat_interleave(slots, 0), own], 1)


class _CategoricalHead(nn.Module):
    """Logits from what the last layer puts out, [batch, net, outputs], and what the observation allows."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape, self.size = head["shape"], head["size"]
        self.allowed = head.get("allowed")

    def forward(self, raw: torch.Tensor, observation: torch.Tensor) -> Categorical:
        logits = raw.reshape(*observation.shape[:-1], *self.shape, self.size)
        if self.allowed is not None:
            logits = logits.masked_fill(observation[..., self.allowed] <= 0, torch.finfo(logits.dtype).min)
        return Categorical(logits)

    def action(self, drawn: torch.Tensor) -> torch.Tensor:
        return drawn


class _GaussianHead(nn.Module):
    """Mean and standard deviation from what the last layer puts out, [batch, net, outputs]."""

    def __init__(self, head: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape, self.is_linear = head["shape"], head["mean"] == "linear"
        self.std, self.std_min = _STDS[head["std"]], head["std_min"]
        for name in ("scale", "offset", "low", "high"):
            self.register_buffer(name, torch.tensor(head[name], dtype=torch.float32))

    def forward(self, raw: torch.Tensor, observation: torch.Tensor) -> Gaussian:
        mean, std = (part.reshape(*observation.shape[:-1], *self.shape) for part in raw.chunk(2, -1))
        mean = mean if self.is_linear else torch.sigmoid(mean)
        return Gaussian(mean * self.scale + self.offset, self.std(std) * self.scale + self.std_min)

    def action(self, drawn: torch.Tensor) -> torch.Tensor:
        return torch.clamp(drawn, self.low, self.high)


class _SimplexHead(_GaussianHead):
    """Its action is the softmax of what is drawn."""

    def action(self, drawn: torch.Tensor) -> torch.Tensor:
        return drawn.softmax(-1)


_HEADS: dict[str, type[nn.Module]] = {
    "categorical": _CategoricalHead,
    "gaussian": _GaussianHead,
    "simplex": _SimplexHead,
}
