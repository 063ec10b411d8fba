"""Where jobs live: a cluster, or this machine's processes. Each observes for `decide` and carries out what it decided."""
