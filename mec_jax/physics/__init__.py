"""Laws without RL: radio rates, frames of computing and transmitting UEs, event loops.

Arrays go in and out for one episode, without a batch axis; `jax.vmap` makes thousands.
"""
