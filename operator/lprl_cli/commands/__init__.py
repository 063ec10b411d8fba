"""One file per command: `epilog(name)`, `add_arguments(parser, name)` and `run(args) -> exit code`."""
