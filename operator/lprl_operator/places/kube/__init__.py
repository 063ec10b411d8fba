"""A Kubernetes cluster as a place: caches, reads, reductions to what the state machine observes."""
