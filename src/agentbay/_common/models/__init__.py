"""Public names, by the path that the published client gives them."""

from .. import public

__getattr__ = public
