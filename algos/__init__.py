"""Trainers, one algorithm a file, and the command line that runs them."""
