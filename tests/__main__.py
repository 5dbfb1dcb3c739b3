"""`python -m tests`: every check of the repository, in order, up to the first that fails."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("pytest",),
)


def main() -> int:
    for check in CHECKS:
        print("$ python -m", *check, flush=True)
        code = subprocess.run([sys.executable, "-m", *check], cwd=ROOT).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
