"""An import path of older releases of the published client."""

from agentbay._common import get_public

__getattr__ = get_public
