"""Kubernetes objects as processes and folders on one machine: what the kubelet, the Job controller and KubeRay do."""
