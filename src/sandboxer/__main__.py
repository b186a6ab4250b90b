"""`python -m sandboxer` is the command `sandboxer`."""

from sandboxer.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
