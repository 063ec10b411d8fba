"""The CustomResourceDefinition, generated: `python -m lprl_api.crd`."""
