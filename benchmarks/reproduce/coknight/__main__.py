"""What `python -m benchmarks.reproduce.coknight` runs."""

from benchmarks.reproduce.coknight.page import main

if __name__ == "__main__":
    main()
