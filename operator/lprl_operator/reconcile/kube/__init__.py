"""The Kubernetes side of the Cluster Protocol: requests, reduction of documents, caches."""
