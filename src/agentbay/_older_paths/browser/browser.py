"""An import path of older releases of the published client, with the public names of `agentbay`."""

from agentbay._common import get_public

__getattr__ = get_public
