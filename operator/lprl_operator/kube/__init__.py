"""The API server itself: requests, paths, kubeconfig, the clocks of both sides."""
