"""Public names, by the path that the published client gives them."""

from .. import get_public

__getattr__ = get_public
