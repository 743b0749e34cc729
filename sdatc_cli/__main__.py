"""`python -m sdatc_cli`."""

from sdatc_cli.app import main

if __name__ == "__main__":
    main()
