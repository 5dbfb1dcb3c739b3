"""Decision problems, one file each: State, Params and a gymnax Environment."""
