"""One machine as a place: Kubernetes objects as processes and folders; what the kubelet, the Job controller and KubeRay do."""
