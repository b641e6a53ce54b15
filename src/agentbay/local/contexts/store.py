"""The store of contexts, with names, states, mounts and bindings in SQLite.

A storage backend keeps the contents. All methods block, so they belong in threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agentbay._lazy_attrs import define
from agentbay.local.contexts import keys
from agentbay.local.contexts.backend import CommitStep, ContentBackend, ContextReader, StagingDirectory
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.directory_tree import ContextTree
from agentbay.local.contexts.errors import context_is_clearing, context_not_found, name_taken
from agentbay.local.contexts.name_registry import NameOwner
from agentbay.local.ids import make_id


@define(frozen=True, slots=False)
class ContextRecord:
    """A row of the table of contexts.

    Attributes:
        number: Ascends with the creation.
        created: Seconds since 1970, as `used`.
        state: "available", "in-use" or "clearing".
    """

    number: int
    id: str
    name: str
    created: float
    used: float
    state: str


class ContextStore:
    """The contexts of one database, with their contents."""

    def __init__(self, db: ContextDatabase, backend: ContentBackend) -> None:
        """Open the store, and recover from a killed runtime."""
        self._db, self._backend = db, backend
        self._naming = threading.RLock()  # serialises changes of names
        self._locks: dict[str, threading.RLock] = {}
        self._recover()

    def close(self) -> None:
        self._db.close()

    @property
    def now(self) -> float:
        """Return the time in seconds since 1970."""
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
        """Return the context of a name.

        Raises:
            NotFoundError: There is none.
        """
        if self._backend.name_registry is not None:
            with self._naming:
                self._apply_name(name, self._backend.name_registry.find(name))
        return self._find_row("name = ?", name)

    def get_or_create(self, name: str) -> ContextRecord:
        """Return the context of a name, and create it if there is none."""
        with self._naming:
            if self._backend.name_registry is not None:
                self._apply_name(name, self._backend.name_registry.find(name))
            if found := self._select_contexts("name = ?", name):
                return found[0]
            # The contents are made first, so that a name never leads to a context that does not exist.
            owner = claim = self._make()
            if self._backend.name_registry is not None:
                owner = self._backend.name_registry.claim(name, claim)
            if owner != claim:  # another runtime won the race for the name
                self.delete(claim.id)
            self._apply_name(name, owner)
            return self._find_row("name = ?", name)

    def create_internal(self) -> ContextRecord:
        """Create a context without a name, which is never listed."""
        return self._find_row("id = ?", self._make().id)

    def page(self, after: int, size: int, session: str | None) -> tuple[list[ContextRecord], int]:
        """Return a page of contexts in the order of creation, and the total.

        Args:
            after: The number of the last context of the page before.
            size: The largest number of contexts on the page.
            session: List the contexts of one session only.
        """
        self._sync_names()
        condition, values = "name IS NOT NULL", []
        if session:
            condition += " AND id IN (SELECT context FROM bindings WHERE session = ?)"
            values = [session]
        found = self._select_contexts(condition, *values)
        return [context for context in found if context.number > after][:size], len(found)

    def rename(self, context_id: str, name: str) -> None:
        """Rename a context.

        Raises:
            ConflictError: Another one has it.
        """
        with self._naming:
            context, names = self.find(context_id), self._backend.name_registry
            taken = any(other.id != context_id for other in self._select_contexts("name = ?", name))
            # Claimed before the old name is released: a kill in between must not leave the context nameless.
            if taken or (
                names is not None and names.claim(name, NameOwner(context_id, context.created)).id != context_id
            ):
                raise name_taken(name)
            if names is not None and name != context.name:
                names.release(context.name)
            self._db.execute("UPDATE contexts SET name = ? WHERE id = ?", name, context_id)

    def delete(self, context_id: str) -> None:
        """Delete a context with its contents.

        If the runtime is killed meanwhile, its next start finishes the deletion.
        """
        with self._locked(context_id):
            with self._naming:
                name = self.find(context_id).name
                # A row without a name is what `_recover` deletes, so a kill from here on only delays the deletion. If
                # the name were released first, the next `_sync_names` would forget the row with its content.
                self._db.execute("UPDATE contexts SET name = NULL WHERE id = ?", context_id)
                if name:
                    try:
                        self._release_names(context_id)
                    except BaseException:
                        self._db.execute("UPDATE contexts SET name = ? WHERE id = ?", name, context_id)
                        raise
            self._backend.delete(context_id)
            self._db.execute("DELETE FROM contexts WHERE id = ?", context_id)

    def mark_clearing(self, context_id: str) -> None:
        """Set the state to "clearing". The caller then calls `clear`.

        If the runtime is killed in between, its next start clears the context.
        """
        self.find(context_id)
        self._db.execute("UPDATE contexts SET clearing = 1 WHERE id = ?", context_id)

    def clear(self, context_id: str) -> None:
        """Delete all files of a context."""
        with self._locked(context_id):
            if self.find(context_id).state != "clearing":  # already cleared by another task
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
        """Lock a context against commits, and yield a reader."""
        with self._locked(context_id):
            self.find(context_id)
            yield self._backend.open_reader(context_id)

    @contextmanager
    def staging(self) -> Iterator[StagingDirectory]:
        """Make a staging directory, removed at the end."""
        with self._backend.staging() as staging:
            yield staging

    def commit(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Apply all steps of a commit atomically and durably.

        Raises:
            NotFoundError: The context has been deleted.
            ConflictError: It is being cleared, or the commit would remove files that it does not delete.
        """
        # Outside the lock: while large files are flushed or uploaded, the context can still be read.
        self._backend.prepare(context_id, staging, steps)
        with self._locked(context_id):
            self._backend.commit(context_id, staging, steps, lambda: self._check_not_clearing(context_id))
            self._touch(context_id)

    def delete_path(self, context_id: str, key: str) -> bool:
        """Delete a file or a whole directory, and return whether it existed."""
        with self._locked(context_id):
            self._check_not_clearing(context_id)
            return self._backend.delete_path(context_id, key)

    def clean_up(self) -> None:
        """Delete expired files in all contexts, and retry clears that failed."""
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
        """Lock a context against commits, and yield its tree and the key to mount.

        That key is `path` itself if the context has a directory there or has never been mounted. Otherwise it is the
        key of the first mount, so that a context shows the same files wherever it is mounted.
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
        """Translate a key below the path of a mount to the mounted directory."""
        rows = self._db.select("SELECT path, key FROM mounts WHERE context = ?", context_id)
        for path, target in sorted(rows, key=lambda row: -len(row[0])):
            if (rest := keys.relative_to(key, keys.decode(path))) is not None:
                return keys.join(keys.decode(target), rest)
        return key

    def bind(self, session: str, context_id: str, path: str, shown: str | None = None) -> float:
        """Record a context of a session, and return the time.

        Args:
            shown: The key of the mounted directory, or None for a copy.
        """
        now = self.now
        row = (session, context_id, keys.encode(path), now, None if shown is None else keys.encode(shown))
        with self._db.transaction():
            self._db.execute("INSERT OR REPLACE INTO bindings VALUES (?, ?, ?, ?, ?)", *row)
            self._touch(context_id)
        return now

    def unbind(self, session: str) -> None:
        self._db.execute("DELETE FROM bindings WHERE session = ?", session)

    def _release_names(self, context_id: str) -> None:
        """Release the names of a context.

        There are two if a runtime was killed while it renamed it.
        """
        registry = self._backend.name_registry
        if registry is not None:
            for name in [name for name, owner in registry.all().items() if owner.id == context_id]:
                registry.release(name)

    def _make(self) -> NameOwner:
        """Make an empty context without a name."""
        owner = NameOwner(make_id("SdkCtx-", 21), self.now)
        # The row comes first, so that `_recover` finds what a killed runtime has begun.
        self._insert(owner, None)
        self._backend.create(owner.id)
        return owner

    def _insert(self, owner: NameOwner, name: str | None) -> None:
        self._db.execute(
            "INSERT INTO contexts (id, name, created, used) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            owner.id,
            name,
            owner.created,
            owner.created,
        )

    def _apply_name(self, name: str, owner: NameOwner | None) -> None:
        """Update the database with the owner of one name."""
        with self._db.transaction():
            self._db.execute("DELETE FROM contexts WHERE name = ? AND id <> ?", name, owner.id if owner else "")
            if owner is not None:
                self._insert(owner, name)

    def _sync_names(self) -> None:
        """Update the database with all names of the shared registry."""
        if self._backend.name_registry is None:
            return
        with self._naming:
            known = {context.name for context in self._select_contexts("name IS NOT NULL")}
            names = self._backend.name_registry.all()
            for name in known - set(names):
                self._apply_name(name, None)
            for name, owner in sorted(names.items(), key=lambda item: item[1].created):
                self._apply_name(name, owner)

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
        query = f"SELECT {fields} FROM contexts WHERE {condition} ORDER BY number"  # noqa: S608 - built from constants
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
        """Finish or roll back what an earlier runtime left. Its sessions are gone."""
        self._db.execute("DELETE FROM bindings")
        self._backend.recover({context.id for context in self._select_contexts("1")})
        self._finish_clears()
        for (context_id,) in self._db.select("SELECT id FROM contexts WHERE name IS NULL"):
            self._release_names(context_id)
            self.delete(context_id)

    def _finish_clears(self) -> None:
        for (context_id,) in self._db.select("SELECT id FROM contexts WHERE clearing"):
            self.clear(context_id)
