"""`python -m algos.cli` is `mec-jax`."""

from algos.cli import main

main()
