"""What `python -m benchmarks.reproduce.mu` runs."""

from benchmarks.reproduce.mu.page import main

if __name__ == "__main__":
    main()
