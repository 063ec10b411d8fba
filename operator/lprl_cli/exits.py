"""Exit codes of `lprl`, the same numbers as the workload's where they mean the same."""

OK = 0
UNEXPECTED = 1
USAGE = 2
USER_ERROR = 3
SUSPENDED = 4
STORAGE_FULL = 5
JOB_FAILED = 10
INTERRUPTED = 130

TABLE = """exit codes:
  0    done
  1    unexpected error, a bug worth reporting (set LPRL_DEBUG=1 for a traceback)
  2    wrong command line
  3    wrong input: manifest, file or option; the message says what fits
  4    the run was suspended; `lprl resume` and `lprl run` go on (in a cluster `kubectl lprl resume`)
  5    no space left on a volume
  10   the job ran and failed; the reason and the remedy are printed
  130  interrupted; the same `lprl run` goes on from the last checkpoint"""
