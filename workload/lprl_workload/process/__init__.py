"""A pod's process: arguments, errors and whose fault they are, the message it ends with."""
