"""The `lprl` command line."""
