"""Reproduce Figs. 9 to 12 of Dai et al. 2022 (Coknight) and judge the paper's claims.

    python -m benchmarks.reproduce.coknight           # some minutes on 2 cores
    python -m benchmarks.reproduce.coknight --page    # the page alone, from OUT/data.json

Results: OUT/data.json, and README.md, pictures and plotted.json, which follow from it.
"""

import sys

from benchmarks.harness.page import print_verdicts, write_page
from benchmarks.harness.results import command_line
from benchmarks.reproduce.coknight.page import REPRODUCTION


def main(argv: list[str] | None = None) -> None:
    """Measure, unless told not to, draw and judge."""
    parser = command_line(REPRODUCTION.module, __doc__, REPRODUCTION.results)
    parser.add_argument("--page", action="store_true", help="only judge and draw what was measured before")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if not args.page:
        # The page alone is NumPy, and need not wait for this.
        from benchmarks.reproduce.coknight.measure import measure_all

        measure_all(args.out)
    print_verdicts(args.out, write_page(REPRODUCTION, args.out))


if __name__ == "__main__":
    main()
