"""An index: one file with what many things embed to, searched by what one thing embeds to.

It is an SQLite database, so whatever happens it is as it was before or after a batch; vectors are kept as float32,
float16, or int8 with a scale of its own for each. A search is one product with all vectors, and exact; see `near` for
what is faster where there are very many.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np
from msgspec import Struct

from mmedge.core.names import shown
from mmedge.core.whole_file import check_place
from mmedge.errors import BundleError, BusyError, MmedgeError, ResourceError, UsageError
from mmedge.runtime.vectors import LENGTHS, PRECISIONS, decoded, encoded

SCHEMA = 1
MAGIC = b"SQLite format 3\0"
APPLICATION = 0x6D6D6567
"""Tells our databases from others: ``mmeg``."""
PAGE = 16_384
"""Bytes; vectors leave a third of the usual 4,096 unused."""
BATCH = 1024
"""Vectors that are read at once."""
WAIT_S = 30.0
"""How long others, who write a batch or look through all, are waited for."""
STATE = "items"
"""Under which a word is kept that is another one after every change of the items."""
_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL, modality TEXT NOT NULL, state TEXT NOT NULL, vector BLOB NOT NULL,
    UNIQUE (name, modality)
);
"""
"""A number is never used again, so the numbers alone tell what was added and removed since."""


class About(Struct, frozen=True):
    """What an index was made with."""

    digest: str
    """Of the bundle."""
    bundle: str
    """Where that was."""
    width: int
    precision: str


class Item(Struct, frozen=True):
    """What is in an index: a file, whose ``state`` changes when it does, or a text, whose state is the file of it."""

    name: str
    modality: str
    state: str


class Hit(Struct, frozen=True):
    """Something that was found."""

    name: str
    modality: str
    cosine: float


class Index:
    """An open index; use it in a ``with`` block."""

    def __init__(self, path: Path, database: sqlite3.Connection, about: About) -> None:
        self.path = path
        self.about = about
        self._database = database

    def states(self) -> dict[tuple[str, str], str]:
        """Of everything in it, by name and modality."""
        with reported(self.path):
            rows = self._database.execute("SELECT name, modality, state FROM items")
            return {(item.name, item.modality): item.state for item in map(self._item, rows)}

    def add(self, items: Sequence[Item], embeddings: np.ndarray) -> None:
        """Add a batch, float32 ``[items, width]``, or replace what has these names; on the disk when this returns."""
        vectors = encoded(embeddings, self.about.precision)
        rows = [(*_fields(item), vector) for item, vector in zip(items, vectors, strict=True)]
        self._change("INSERT OR REPLACE INTO items (name, modality, state, vector) VALUES (?, ?, ?, ?)", rows)

    def remove(self, keys: Iterable[tuple[str, str]]) -> None:
        """Forget things by name and modality."""
        self._change("DELETE FROM items WHERE name = ? AND modality = ?", list(keys))

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            with reported(self.path), self._database:
                self._database.executemany(statement, rows)
                self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (STATE, secrets.token_hex(8)))

    @contextmanager
    def still(self) -> Iterator[None]:
        """In the block everything is as it was at its first look, whatever others write."""
        with reported(self.path):
            self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.rollback()

    def read(self, modality: str | None = None) -> tuple[list[Item], np.ndarray]:
        """All items, or those of a modality, and their vectors, float32 ``[items, width]``.

        Raises:
            BundleError: a vector is not as long as it should be.
        """
        where, given = _only(modality)
        with self.still():
            with reported(self.path):
                rows = self._database.execute(f"SELECT name, modality, state FROM items{where} ORDER BY id", given)
                items = [self._item(row) for row in rows]
            return items, self.rows(modality)[1]

    def rows(self, modality: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all items, or those of a modality, int64 ``[items]``, growing, and their vectors, float32
        ``[items, width]``; in a block that is `still`.

        Raises:
            BundleError: a vector is not as long as it should be.
        """
        where, given = _only(modality)
        with reported(self.path):
            count = self._database.execute(f"SELECT count(*) FROM items{where}", given).fetchone()[0]
            found = self._database.execute(f"SELECT id, vector FROM items{where} ORDER BY id", given)
            ids, vectors, begin = np.empty(count, np.int64), np.empty((count, self.about.width), np.float32), 0
            while batch := found.fetchmany(BATCH):
                if (end := begin + len(batch)) > count:
                    break
                ids[begin:end] = [number for number, _ in batch]
                vectors[begin:end] = self._decoded(batch)
                begin = end
        if batch or begin < count:
            raise damaged(self.path, f"it has not the {count} items that it tells of")
        return ids, vectors

    def ids(self) -> np.ndarray:
        """The number of each item, int64 ``[items]``, growing."""
        with reported(self.path):
            rows = self._database.execute("SELECT id FROM items ORDER BY id").fetchall()
        return np.array([row[0] for row in rows], np.int64)

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        """Of the items with these numbers, float32 ``[ids, width]``."""
        return self._decoded([self._row("id, vector", number) for number in ids])

    def items(self, ids: Sequence[int]) -> list[Item]:
        """Those with these numbers."""
        return [self._item(self._row("name, modality, state", number)) for number in ids]

    def note(self, name: str, value: str | None) -> None:
        """Keep a word beside the items; a later one of the same name takes its place, None forgets it."""
        with reported(self.path), self._database:
            if value is None:
                self._database.execute("DELETE FROM about WHERE name = ?", (name,))
            else:
                self._database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def noted(self, name: str) -> str | None:
        """What was kept under this name."""
        with reported(self.path):
            row = self._database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def _row(self, columns: str, number: int) -> tuple[object, ...]:
        with reported(self.path):
            query = f"SELECT {columns} FROM items WHERE id = ?"
            row: tuple[object, ...] | None = self._database.execute(query, (int(number),)).fetchone()
        if row is None:
            raise damaged(self.path, f"it has no item number {number}")
        return row

    def _item(self, row: Sequence[object]) -> Item:
        name, modality, state = row
        if not (isinstance(name, str) and isinstance(modality, str) and isinstance(state, str)):
            raise damaged(self.path, "the name of an item is no text")
        return Item(name, modality, state)

    def _decoded(self, rows: Sequence[Sequence[object]]) -> np.ndarray:
        """Of numbers and vectors as they are kept."""
        length, kept = LENGTHS[self.about.precision](self.about.width), []
        for number, vector in rows:
            if not isinstance(vector, bytes):
                raise damaged(self.path, f"the vector of item number {number} is none")
            if len(vector) != length:
                raise damaged(
                    self.path, f"the vector of item number {number} is {len(vector)} bytes long, not {length}"
                )
            kept.append(vector)
        vectors = decoded(kept, self.about.precision, self.about.width)
        if not np.isfinite(vectors).all():
            raise damaged(self.path, "a vector has numbers that are none")
        return vectors

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """What the database complains of, as errors of ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _told(path, str(error)) from error


def _told(path: Path, complaint: str) -> MmedgeError:
    if any(word in complaint for word in ("locked", "busy")):
        return BusyError(f"`{path}` is in use by another process", hint="wait for it")
    if any(word in complaint for word in ("full", "readonly", "I/O", "unable to open")):
        hint = "run this as a user who may write it" if "readonly" in complaint else None
        return ResourceError(f"cannot use `{path}`: {complaint}", hint=hint)
    return damaged(path, shown(complaint))


def damaged(path: Path, reason: str) -> BundleError:
    """What to raise of a file that is not what was written."""
    return BundleError(f"`{path}` is damaged: {reason}", hint="remove it and make it again with `mmedge index`")


def open_index(path: Path) -> Index:
    """Open an index to be searched. Where a process was killed while it wrote, what it left half done is taken back
    now, so the file is opened to be written if that is possible, and then nothing is.

    Raises:
        UsageError: there is none.
        BundleError: the file is damaged or something else.
    """
    _check_file(path)
    database = _connected(path, "rw")
    try:
        with reported(path):
            database.execute("PRAGMA query_only = 1")
        return Index(path, database, _about(path, database))
    except BaseException:
        database.close()
        raise


def make_index(path: Path, about: About, *, as_it_is: bool = False) -> Index:
    """Open an index to be added to, made unless it is there; ``as_it_is`` in whatever precision it has.

    Raises:
        UsageError: it was made by another bundle or in another precision, or it cannot be written there.
        BundleError: the file is damaged or something else.
        BusyError: another process does not let go of it.
    """
    check_place(path)
    if about.precision not in PRECISIONS:
        raise UsageError(f"`{about.precision}` is no precision", hint=f"choose from: {', '.join(PRECISIONS)}")
    if path.exists() and path.stat().st_size:
        _check_file(path)
    database = _connected(path, "rwc")
    try:
        with reported(path):
            database.execute(f"PRAGMA page_size = {PAGE}")  # of a new one
            database.execute("PRAGMA synchronous = FULL")
            if _is_empty(database):
                _create(database, about)
        found = _about(path, database)
        check_bundle(found, about.digest, about.width, path)
        if found.precision != about.precision and not as_it_is:
            raise UsageError(f"`{path}` is in {found.precision}, not in {about.precision}", hint="name another file")
        return Index(path, database, found)
    except BaseException:
        database.close()
        raise


def check_bundle(about: About, digest: str, width: int, path: Path) -> None:
    """Of an index at ``path``, and of a bundle that embeds to vectors of this width.

    Raises:
        UsageError: vectors of one bundle say nothing to another.
        BundleError: it says so, but cannot be of this bundle.
    """
    if about.digest != digest:
        raise UsageError(
            f"`{path}` was made by another bundle: its digest is {shown(about.digest[:12])}, this one's {digest[:12]}",
            hint=f"use that of `{about.bundle}`, or make a new index",
        )
    if about.width != width:
        raise damaged(path, f"its vectors are {about.width} wide, those of its bundle {width}")


def _is_empty(database: sqlite3.Connection) -> bool:
    return not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _create(database: sqlite3.Connection, about: About) -> None:
    values = {"schema": str(SCHEMA), **{name: str(getattr(about, name)) for name in About.__struct_fields__}}
    with database:
        database.execute("BEGIN IMMEDIATE")
        if not _is_empty(database):  # another process was faster
            return
        for statement in _TABLES.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.executemany("INSERT INTO about VALUES (?, ?)", values.items())


def _about(path: Path, database: sqlite3.Connection) -> About:
    with reported(path):
        pages, size = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if (length := path.stat().st_size) < pages * size:
            raise damaged(path, f"it is {length} bytes long, not {pages * size}")
        if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
            raise BundleError(f"`{path}` is no index of mmedge", hint="`mmedge index` makes one")
        values = {name: value for name, value in database.execute("SELECT name, value FROM about")}
    if values.get("schema") != str(SCHEMA):
        raise BundleError(
            f"`{path}` has schema {shown(str(values.get('schema')))}, this mmedge reads {SCHEMA}", hint="make it again"
        )
    try:
        fields = {name: values[name] for name in About.__struct_fields__}
        about = msgspec.convert(fields | {"width": int(fields["width"])}, About)
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise damaged(path, "it does not say what it was made with") from error
    if about.precision not in PRECISIONS or about.width < 1:
        raise damaged(path, f"its vectors are {about.width} wide in {about.precision}")
    return about


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise UsageError(f"there is no index at `{path}`: {reason}", hint="`mmedge index` makes one") from error
    if magic != MAGIC:
        raise BundleError(f"`{path}` is no index of mmedge", hint="`mmedge index` makes one")


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    with reported(path):
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=WAIT_S)
        database.execute("PRAGMA trusted_schema = 0")  # it may be a stranger's
        return database


def _only(modality: str | None) -> tuple[str, tuple[str, ...]]:
    """A condition, and what it asks for."""
    return ("", ()) if modality is None else (" WHERE modality = ?", (modality,))


def _fields(item: Item) -> tuple[str, str, str]:
    return item.name, item.modality, item.state
