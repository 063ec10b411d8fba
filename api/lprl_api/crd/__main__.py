"""`python -m lprl_api.crd` prints the CustomResourceDefinition."""

import sys

from lprl_api.crd.generate import crd_yaml

sys.stdout.write(crd_yaml())
