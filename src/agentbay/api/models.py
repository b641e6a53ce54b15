"""Public names, by the path that the published client gives them."""

from .._common import public

__getattr__ = public
