"""What the command line does with jobs in a cluster; the Kubernetes client is imported only when a command needs it."""
