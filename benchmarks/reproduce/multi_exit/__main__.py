"""What `python -m benchmarks.reproduce.multi_exit` runs."""

from benchmarks.reproduce.multi_exit.page import main

if __name__ == "__main__":
    main()
