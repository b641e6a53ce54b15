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
from agentbay.local.contexts.backend import CommitStep, ContentBackend, ContextReader, StagingDirectory
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.directory_tree import ContextTree
from agentbay.local.contexts.errors import context_is_clearing, context_not_found, name_taken
from agentbay.local.contexts.name_registry import NameOwner
from agentbay.local.ids import make_id


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A context; `state` is available, in-use or clearing, times are seconds since 1970."""

    number: int
    id: str
    name: str
    created: float
    used: float
    state: str


class ContextStore:
    """The contexts in one database, and what they hold."""

    def __init__(self, db: ContextDatabase, contents: ContentBackend) -> None:
        """Take over, and carry out or undo what a killed runtime has left half done."""
        self._db, self._backend = db, contents
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

    def find(self, context_id: str) -> ContextRecord:
        """Return a context.

        Raises:
            NotFoundError: There is none.
        """
        if found := self._select_contexts("id = ?", context_id):
            return found[0]
        self._sync_names()
        return self._find_row("id = ?", context_id)

    def find_by_name(self, name: str) -> ContextRecord:
        """Return the context of that name."""
        if self._backend.name_registry is not None:
            self._apply_name(name, self._backend.name_registry.find(name))
        return self._find_row("name = ?", name)

    def get_or_create(self, name: str) -> ContextRecord:
        """Return the context of that name, made if there is none."""
        with self._naming:
            if self._backend.name_registry is not None:
                self._apply_name(name, self._backend.name_registry.find(name))
            if found := self._select_contexts("name = ?", name):
                return found[0]
            named = mine = NameOwner(self._make(), self.now)
            if self._backend.name_registry is not None:
                named = self._backend.name_registry.claim(name, mine)
            if named != mine:  # another runtime was faster
                self._backend.delete(mine.id)
            self._apply_name(name, named)
            return self._find_row("name = ?", name)

    def create_internal(self) -> ContextRecord:
        """Make a context without a name, for a session's own purposes."""
        made = NameOwner(self._make(), self.now)
        self._insert(made, None)
        return self._find_row("id = ?", made.id)

    def page(self, after: int, size: int, session: str | None) -> tuple[list[ContextRecord], int]:
        """Return up to `size` contexts made after the one of that number, and how many there are in all."""
        self._sync_names()
        condition, values = "name IS NOT NULL", []
        if session:
            condition += " AND id IN (SELECT context FROM bindings WHERE session = ?)"
            values = [session]
        found = self._select_contexts(condition, *values)
        return [context for context in found if context.number > after][:size], len(found)

    def rename(self, context_id: str, name: str) -> None:
        """Give a context another name.

        Raises:
            ConflictError: Another one has it.
        """
        with self._naming:
            context, names = self.find(context_id), self._backend.name_registry
            taken = any(other.id != context_id for other in self._select_contexts("name = ?", name))
            if taken or (
                names is not None and names.claim(name, NameOwner(context_id, context.created)).id != context_id
            ):
                raise name_taken(name)
            if names is not None and name != context.name:
                names.release(context.name)
            self._db.execute("UPDATE contexts SET name = ? WHERE id = ?", name, context_id)

    def delete(self, context_id: str) -> None:
        """Delete a context and all it holds; begun, it is finished at the next start at the latest."""
        with self._locked(context_id):
            context = self.find(context_id)
            if self._backend.name_registry is not None and context.name:
                self._backend.name_registry.release(context.name)
            self._db.execute("UPDATE contexts SET name = NULL WHERE id = ?", context_id)
            self._backend.delete(context_id)
            self._db.execute("DELETE FROM contexts WHERE id = ?", context_id)

    def mark_clearing(self, context_id: str) -> None:
        """Say that a context is being cleared; `clear` must follow, and does at the next start at the latest."""
        self.find(context_id)
        self._db.execute("UPDATE contexts SET clearing = 1 WHERE id = ?", context_id)

    def clear(self, context_id: str) -> None:
        """Delete all files of a context."""
        with self._locked(context_id):
            if self.find(context_id).state != "clearing":  # somebody else has done it
                return
            self._backend.clear(context_id)
            self._db.execute("UPDATE contexts SET clearing = 0, cleared = 1 WHERE id = ?", context_id)

    # files

    def epoch(self, context_id: str) -> int:
        """Return how often a context has been cleared."""
        self.find(context_id)
        return self._backend.epoch(context_id)

    @contextmanager
    def open_reader(self, context_id: str) -> Iterator[ContextReader]:
        """Keep commits out while files are looked for."""
        with self._locked(context_id):
            self.find(context_id)
            yield self._backend.open_reader(context_id)

    @contextmanager
    def staging(self) -> Iterator[StagingDirectory]:
        """Make a staging directory, removed at the end."""
        with self._backend.staging() as staging:
            yield staging

    def commit(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Do all of the steps or none of them, whatever happens; when this returns, they are done.

        Raises:
            NotFoundError: The context has been deleted.
            ConflictError: It is being cleared.
        """
        self._backend.prepare(context_id, staging, steps)
        with self._locked(context_id):
            self._backend.commit(context_id, staging, steps, lambda: self._check_not_clearing(context_id))
            self._touch(context_id)

    def delete_path(self, context_id: str, key: str) -> bool:
        """Delete a file, or a folder with all that is in it; False if there is none."""
        with self._locked(context_id):
            self._check_not_clearing(context_id)
            return self._backend.delete_path(context_id, key)

    def clean_up(self) -> None:
        """Delete what is overdue, in all contexts, and clear those of which that has failed."""
        self._finish_clears()
        for context_id in self._backend.contexts_to_clean():
            with self._locked(context_id):
                self._backend.clean_up(context_id)

    # mounts and bindings

    def check_mount(self, context_id: str) -> None:
        """Raise if a context cannot be mounted."""
        self.find(context_id)
        self._backend.tree(context_id)

    @contextmanager
    def lock_for_mount(self, context_id: str, path: str) -> Iterator[tuple[ContextTree, str]]:
        """Keep commits out; yield the tree of a context, and the key that a mount at `path` shows: `path` itself if
        the context has files there or has never been mounted, else that of its first mount, so that a context shows
        the same wherever it is mounted.
        """
        own = keys.encode(path)
        with self.open_reader(context_id):
            tree = self._backend.tree(context_id)
            with self._db.transaction():
                shown = "SELECT path, key FROM mounts WHERE context = ? ORDER BY path <> key"
                rows = dict(self._db.select(shown, context_id))
                key: bytes = rows.get(own) or (
                    own if not rows or tree.has_directory(path) else next(iter(rows.values()))
                )
                self._db.execute("INSERT OR IGNORE INTO mounts VALUES (?, ?, ?)", context_id, own, key)
            yield tree, keys.decode(key)

    def resolve_key(self, context_id: str, key: str) -> str:
        """Return where a key really is: below the path of a mount, it is in the directory that is mounted there."""
        rows = self._db.select("SELECT path, key FROM mounts WHERE context = ?", context_id)
        for path, target in sorted(rows, key=lambda row: -len(row[0])):
            if (rest := keys.relative_to(key, keys.decode(path))) is not None:
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
        self._backend.create(context_id)
        return context_id

    def _insert(self, named: NameOwner, name: str | None) -> None:
        self._db.execute(
            "INSERT INTO contexts (id, name, created, used) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            named.id,
            name,
            named.created,
            named.created,
        )

    def _apply_name(self, name: str, named: NameOwner | None) -> None:
        """Take over what is true of a name."""
        with self._db.transaction():
            self._db.execute("DELETE FROM contexts WHERE name = ? AND id <> ?", name, named.id if named else "")
            if named is not None:
                self._insert(named, name)

    def _sync_names(self) -> None:
        """Take over what those who share the contents have made of all names."""
        if self._backend.name_registry is None:
            return
        with self._naming:
            known = {context.name for context in self._select_contexts("name IS NOT NULL")}
            names = self._backend.name_registry.all()
            for name in known - set(names):
                self._apply_name(name, None)
            for name, named in sorted(names.items(), key=lambda item: item[1].created):
                self._apply_name(name, named)

    def _find_row(self, condition: str, value: str) -> ContextRecord:
        found = self._select_contexts(condition, value)
        if not found:
            raise context_not_found(value)
        return found[0]

    def _select_contexts(self, condition: str, *values: object) -> list[ContextRecord]:
        state = (
            "CASE WHEN clearing THEN 'clearing' WHEN NOT cleared AND EXISTS "
            "(SELECT 1 FROM bindings WHERE context = contexts.id) THEN 'in-use' ELSE 'available' END"
        )
        fields = f"number, id, coalesce(name, ''), created, used, {state}"
        query = f"SELECT {fields} FROM contexts WHERE {condition} ORDER BY number"  # noqa: S608 - all of it stands above
        return [ContextRecord(*row) for row in self._db.select(query, *values)]

    def _check_not_clearing(self, context_id: str) -> None:
        if self.find(context_id).state == "clearing":
            raise context_is_clearing(context_id)

    def _touch(self, context_id: str) -> None:
        self._db.execute("UPDATE contexts SET used = ?, cleared = 0 WHERE id = ?", self.now, context_id)

    @contextmanager
    def _locked(self, context_id: str) -> Iterator[None]:
        with self._locks.setdefault(context_id, threading.RLock()):
            yield

    def _recover(self) -> None:
        """Carry out what was decided, drop what was not; sessions of an earlier runtime are gone."""
        self._db.execute("DELETE FROM bindings")
        self._backend.recover({context.id for context in self._select_contexts("1")})
        self._finish_clears()
        for (context_id,) in self._db.select("SELECT id FROM contexts WHERE name IS NULL"):
            self.delete(context_id)

    def _finish_clears(self) -> None:
        for (context_id,) in self._db.select("SELECT id FROM contexts WHERE clearing"):
            self.clear(context_id)
