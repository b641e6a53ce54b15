"""The base class of handles, which hold connections and keys."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Handle:
    """A live object that can be neither pickled nor copied."""

    _instead = ""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, since it holds connections and a key. {self._instead}"
        )
