"""What `python -m benchmarks.reproduce.decolla` runs."""

from benchmarks.reproduce.decolla.page import main

if __name__ == "__main__":
    main()
