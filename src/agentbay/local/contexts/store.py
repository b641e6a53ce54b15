"""The contexts there are: names, states, mounts and bindings in SQLite; what they hold is kept by `Contents`.

All of this blocks; it is meant for threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from agentbay.local.contexts import keys
from agentbay.local.contexts.contents import Contents, Staging, Step, View
from agentbay.local.contexts.names import Named
from agentbay.local.contexts.refusals import name_taken, no_context, not_now
from agentbay.local.contexts.schema import Database
from agentbay.local.contexts.tree import Tree
from agentbay.local.session import make_id


@dataclass(frozen=True, slots=True)
class Context:
    """A context; `state` is available, in-use or clearing, times are seconds since 1970."""

    number: int
    id: str
    name: str
    created: float
    used: float
    state: str


class Store:
    """The contexts in one database, and what they hold."""

    def __init__(self, db: Database, contents: Contents) -> None:
        """Take over, and carry out or undo what a killed runtime has left half done."""
        self._db, self._contents = db, contents
        self._naming = threading.RLock()  # names are made, given and learnt one after the other
        self._locks: dict[str, threading.RLock] = {}
        self._recover()

    def close(self) -> None:
        """Close."""
        self._db.close()

    @property
    def now(self) -> float:
        """The time by this machine's clock, in seconds since 1970."""
        return time.time()

    # contexts

    def find(self, context_id: str) -> Context:
        """Return a context.

        Raises:
            NotFoundError: There is none.
        """
        if found := self._rows("id = ?", context_id):
            return found[0]
        self._learn()
        return self._one("id = ?", context_id)

    def named(self, name: str) -> Context:
        """Return the context of that name."""
        if self._contents.names is not None:
            self._know(name, self._contents.names.find(name))
        return self._one("name = ?", name)

    def obtain(self, name: str) -> Context:
        """Return the context of that name, made if there is none."""
        with self._naming:
            if self._contents.names is not None:
                self._know(name, self._contents.names.find(name))
            if found := self._rows("name = ?", name):
                return found[0]
            named = mine = Named(self._make(), self.now)
            if self._contents.names is not None:
                named = self._contents.names.give(name, mine)
            if named != mine:  # another runtime was faster
                self._contents.delete(mine.id)
            self._know(name, named)
            return self._one("name = ?", name)

    def make_internal(self) -> Context:
        """Make a context without a name, for a session's own purposes."""
        made = Named(self._make(), self.now)
        self._insert(made, None)
        return self._one("id = ?", made.id)

    def page(self, after: int, size: int, session: str | None) -> tuple[list[Context], int]:
        """Return up to `size` contexts made after the one of that number, and how many there are in all."""
        self._learn()
        condition, values = "name IS NOT NULL", []
        if session:
            condition += " AND id IN (SELECT context FROM bindings WHERE session = ?)"
            values = [session]
        found = self._rows(condition, *values)
        return [context for context in found if context.number > after][:size], len(found)

    def rename(self, context_id: str, name: str) -> None:
        """Give a context another name.

        Raises:
            ConflictError: Another one has it.
        """
        with self._naming:
            context, names = self.find(context_id), self._contents.names
            taken = any(other.id != context_id for other in self._rows("name = ?", name))
            if taken or (names is not None and names.give(name, Named(context_id, context.created)).id != context_id):
                raise name_taken(name)
            if names is not None and name != context.name:
                names.take(context.name)
            self._db.execute("UPDATE contexts SET name = ? WHERE id = ?", name, context_id)

    def delete(self, context_id: str) -> None:
        """Delete a context and all it holds; begun, it is finished at the next start at the latest."""
        with self._locked(context_id):
            context = self.find(context_id)
            if self._contents.names is not None and context.name:
                self._contents.names.take(context.name)
            self._db.execute("UPDATE contexts SET name = NULL WHERE id = ?", context_id)
            self._contents.delete(context_id)
            self._db.execute("DELETE FROM contexts WHERE id = ?", context_id)

    def begin_clear(self, context_id: str) -> None:
        """Say that a context is being cleared; `clear` must follow, and does at the next start at the latest."""
        self.find(context_id)
        self._db.execute("UPDATE contexts SET clearing = 1 WHERE id = ?", context_id)

    def clear(self, context_id: str) -> None:
        """Delete all files of a context."""
        with self._locked(context_id):
            if self.find(context_id).state != "clearing":  # somebody else has done it
                return
            self._contents.clear(context_id)
            self._db.execute("UPDATE contexts SET clearing = 0, cleared = 1 WHERE id = ?", context_id)

    # files

    def epoch(self, context_id: str) -> int:
        """Return how often a context has been cleared."""
        self.find(context_id)
        return self._contents.epoch(context_id)

    @contextmanager
    def reading(self, context_id: str) -> Iterator[View]:
        """Keep commits out while files are looked for."""
        with self._locked(context_id):
            self.find(context_id)
            yield self._contents.view(context_id)

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """Make a staging directory, removed at the end."""
        with self._contents.staging() as staging:
            yield staging

    def commit(self, context_id: str, staging: Staging, steps: Sequence[Step]) -> None:
        """Do all of the steps or none of them, whatever happens; when this returns, they are done.

        Raises:
            NotFoundError: The context has been deleted.
            ConflictError: It is being cleared.
        """
        self._contents.prepare(context_id, staging, steps)
        with self._locked(context_id):
            self._contents.commit(context_id, staging, steps, lambda: self._check(context_id))
            self._touch(context_id)

    def remove(self, context_id: str, key: str) -> bool:
        """Delete a file, or a folder with all that is in it; False if there is none."""
        with self._locked(context_id):
            self._check(context_id)
            return self._contents.remove(context_id, key)

    def tidy(self) -> None:
        """Delete what is overdue, in all contexts, and clear those of which that has failed."""
        self._clear_begun()
        for context_id in self._contents.overdue():
            with self._locked(context_id):
                self._contents.tidy(context_id)

    # mounts and bindings

    def check_mount(self, context_id: str) -> None:
        """Raise if a context cannot be mounted."""
        self.find(context_id)
        self._contents.tree(context_id)

    @contextmanager
    def mounting(self, context_id: str, path: str) -> Iterator[tuple[Tree, str]]:
        """Keep commits out; yield the tree of a context, and the key that a mount at `path` shows: `path` itself if
        the context has files there or has never been mounted, else that of its first mount, so that a context shows
        the same wherever it is mounted.
        """
        own = keys.encode(path)
        with self.reading(context_id):
            tree = self._contents.tree(context_id)
            with self._db.transaction():
                shown = "SELECT path, key FROM mounts WHERE context = ? ORDER BY path <> key"
                rows = dict(self._db.select(shown, context_id))
                key: bytes = rows.get(own) or (own if not rows or tree.exists(path) else next(iter(rows.values())))
                self._db.execute("INSERT OR IGNORE INTO mounts VALUES (?, ?, ?)", context_id, own, key)
            yield tree, keys.decode(key)

    def locate(self, context_id: str, key: str) -> str:
        """Return where a key really is: below the path of a mount, it is in the directory that is mounted there."""
        rows = self._db.select("SELECT path, key FROM mounts WHERE context = ?", context_id)
        for path, target in sorted(rows, key=lambda row: -len(row[0])):
            if (rest := keys.below(key, keys.decode(path))) is not None:
                return keys.join(keys.decode(target), rest)
        return key

    def bind(self, session: str, context_id: str, path: str, shown: str | None = None) -> float:
        """Note that a session has a context, mounted if `shown` is the key of a directory; return when."""
        now = self.now
        row = (session, context_id, keys.encode(path), now, None if shown is None else keys.encode(shown))
        with self._db.transaction():
            self._db.execute("INSERT OR REPLACE INTO bindings VALUES (?, ?, ?, ?, ?)", *row)
            self._touch(context_id)
        return now

    def unbind(self, session: str) -> None:
        """Forget what a session had."""
        self._db.execute("DELETE FROM bindings WHERE session = ?", session)

    # within

    def _make(self) -> str:
        context_id = make_id("SdkCtx-", 21)
        self._contents.create(context_id)
        return context_id

    def _insert(self, named: Named, name: str | None) -> None:
        self._db.execute(
            "INSERT INTO contexts (id, name, created, used) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            named.id,
            name,
            named.created,
            named.created,
        )

    def _know(self, name: str, named: Named | None) -> None:
        """Take over what is true of a name."""
        with self._db.transaction():
            self._db.execute("DELETE FROM contexts WHERE name = ? AND id <> ?", name, named.id if named else "")
            if named is not None:
                self._insert(named, name)

    def _learn(self) -> None:
        """Take over what those who share the contents have made of all names."""
        if self._contents.names is None:
            return
        with self._naming:
            known = {context.name for context in self._rows("name IS NOT NULL")}
            names = self._contents.names.all()
            for name in known - set(names):
                self._know(name, None)
            for name, named in sorted(names.items(), key=lambda item: item[1].created):
                self._know(name, named)

    def _one(self, condition: str, value: str) -> Context:
        found = self._rows(condition, value)
        if not found:
            raise no_context(value)
        return found[0]

    def _rows(self, condition: str, *values: object) -> list[Context]:
        state = (
            "CASE WHEN clearing THEN 'clearing' WHEN NOT cleared AND EXISTS "
            "(SELECT 1 FROM bindings WHERE context = contexts.id) THEN 'in-use' ELSE 'available' END"
        )
        fields = f"number, id, coalesce(name, ''), created, used, {state}"
        query = f"SELECT {fields} FROM contexts WHERE {condition} ORDER BY number"  # noqa: S608 - all of it stands above
        return [Context(*row) for row in self._db.select(query, *values)]

    def _check(self, context_id: str) -> None:
        if self.find(context_id).state == "clearing":
            raise not_now(context_id)

    def _touch(self, context_id: str) -> None:
        self._db.execute("UPDATE contexts SET used = ?, cleared = 0 WHERE id = ?", self.now, context_id)

    @contextmanager
    def _locked(self, context_id: str) -> Iterator[None]:
        with self._locks.setdefault(context_id, threading.RLock()):
            yield

    def _recover(self) -> None:
        """Carry out what was decided, drop what was not; sessions of an earlier runtime are gone."""
        self._db.execute("DELETE FROM bindings")
        self._contents.recover({context.id for context in self._rows("1")})
        self._clear_begun()
        for (context_id,) in self._db.select("SELECT id FROM contexts WHERE name IS NULL"):
            self.delete(context_id)

    def _clear_begun(self) -> None:
        for (context_id,) in self._db.select("SELECT id FROM contexts WHERE clearing"):
            self.clear(context_id)
