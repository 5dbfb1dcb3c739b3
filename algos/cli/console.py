"""Where the commands print."""

import sys

from rich.console import Console

# Names of files and layers are printed: nothing in them is markup. There may be no stdout.
console = Console(width=None if sys.stdout and sys.stdout.isatty() else 100, markup=False, emoji=False)
