"""How fast: frames per second against plain loops, runs at once, seconds to a good policy."""
