"""Which command line the arguments are for. Each is imported when it is asked for: the tool's server needs no torch."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Do what the arguments ask for; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["lookup"], ["lookup-server"]):
        from lprl_fixtures import lookup_cli

        return lookup_cli.main(argv)
    if argv[:1] in (["smollm2"], ["questions"]):
        from lprl_fixtures import real

        return real.main(argv)
    from lprl_fixtures import inputs_cli

    return inputs_cli.main(argv)


if __name__ == "__main__":
    sys.exit(main())
