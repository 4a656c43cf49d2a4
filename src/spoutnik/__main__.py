"""`python -m spoutnik` is `spoutnik`."""

from spoutnik.cli.main import main

if __name__ == "__main__":
    main()
