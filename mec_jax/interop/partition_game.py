"""The partition game with each device as an agent, in the conventions of JaxMARL's `MultiAgentEnv`: dictionaries by
agent, `dones["__all__"]`, an automatic reset, `get_avail_actions`. JaxMARL itself is not needed.
"""

from functools import partial

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int

from mec_jax.envs.partition_game import Params, PartitionGame, State


class PartitionGameAgents:
    """`PartitionGame-v0` for one agent a device, named `device_0`, `device_1`, ...

    One device chooses at each step, as in the environment; the others have a single available action, to keep their
    cut, and whatever they say does not matter. An absent device has the single action K. An agent observes what the
    controller would if it were its turn, and where the turn really is; zeros while it is absent.

    Args:
        env: The environment.
        params: Its parameters; the defaults if absent.
        shared_reward: Whether each agent earns the sum over devices, as the controller does; else its own utility. Both
            are divided by `reference_utility`.
    """

    def __init__(self, env: PartitionGame, params: Params | None = None, shared_reward: bool = False) -> None:
        self.env = env
        self.params = env.default_params if params is None else params
        self.shared_reward = shared_reward
        self.num_agents = env.num_devices
        self.agents = [f"device_{index}" for index in range(env.num_devices)]
        self.observation_spaces = dict.fromkeys(self.agents, env.observation_space(self.params))
        self.action_spaces = dict.fromkeys(self.agents, env.action_space(self.params))

    @property
    def name(self) -> str:
        """That of the environment."""
        return self.env.name

    @property
    def agent_classes(self) -> dict[str, list[str]]:
        """All agents are devices."""
        return {"device": self.agents}

    def observation_space(self, agent: str) -> spaces.Space:
        """What an agent observes."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        """The cuts of an agent, 0 to K."""
        return self.action_spaces[agent]

    @partial(jax.jit, static_argnums=0)
    def reset(self, key: Array) -> tuple[dict[str, Array], State]:
        """Observations and state at the start of an episode."""
        _, state = self.env.reset_env(key, self.params)
        return self.get_obs(state), state

    @partial(jax.jit, static_argnums=0)
    def step(
        self, key: Array, state: State, actions: dict[str, Int[Array, ""]], reset_state: State | None = None
    ) -> tuple[dict[str, Array], State, dict[str, Array], dict[str, Array], dict[str, dict[str, Array]]]:
        """`step_env`, and the start of the next episode after the end of this one.

        Args:
            key: Key of the step.
            state: State before it.
            actions: Cut of each agent.
            reset_state: Where the next episode starts; one of the key if absent.
        """
        key, reset_key = jax.random.split(key)
        _, after, rewards, dones, infos = self.step_env(key, state, actions)
        start = self.reset(reset_key)[1] if reset_state is None else reset_state
        after = jax.tree.map(lambda new, old: jnp.where(dones["__all__"], new, old), start, after)
        return self.get_obs(after), after, rewards, dones, infos

    def step_env(
        self, key: Array, state: State, actions: dict[str, Int[Array, ""]]
    ) -> tuple[dict[str, Array], State, dict[str, Array], dict[str, Array], dict[str, dict[str, Array]]]:
        """Observations, state, rewards, dones and infos by agent; an info has the agent's `utility` (s) and `cut`.

        Args:
            key: Key of the step.
            state: State before it.
            actions: Cut of each agent.
        """
        action = jnp.stack([jnp.asarray(actions[agent]) for agent in self.agents])[state.turn]
        _, after, reward, terminated, info = self.env.step_env(key, state, action, self.params)
        done = terminated | self.env.is_truncated(after, self.params)
        own = info["utility"] / self.params.reference_utility
        rewards = {agent: reward if self.shared_reward else own[index] for index, agent in enumerate(self.agents)}
        infos = {
            agent: {"utility": info["utility"][index], "cut": info["cut"][index]}
            for index, agent in enumerate(self.agents)
        }
        return self.get_obs(after), after, rewards, dict.fromkeys([*self.agents, "__all__"], done), infos

    def get_obs(self, state: State) -> dict[str, Float[Array, " observation"]]:
        """What each agent observes."""
        own = jax.vmap(self.env.observe_as, (None, 0, None))(state, jnp.arange(self.num_agents), self.params)
        present = state.context.present
        return {agent: jnp.where(present[index], own[index], 0) for index, agent in enumerate(self.agents)}

    @partial(jax.jit, static_argnums=0)
    def get_avail_actions(self, state: State) -> dict[str, Bool[Array, " cut"]]:
        """The cuts that fit for the agent whose turn it is; of the others, their own."""
        observation = self.env.observe_as(state, state.turn, self.params)
        fits = self.env.action_mask(observation, self.params)["action"]
        cuts = jnp.arange(self.env.num_cuts + 1)
        return {
            agent: jnp.where(state.turn == index, fits, cuts == state.allocation.cut[index])
            for index, agent in enumerate(self.agents)
        }
