"""Rows of a database's query, in the order of a watermark column, again and again.

A position is the watermark of the last row that the stream has. The next reading begins there, that value included, or
a declared lookback before it: rows that became visible later under the same or a slightly older watermark are not lost.
What is read again is told by its content and not published twice by one process; after a restart it may be, and is the
same event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from headway.core.errors import DefinitionError, HeadwayError, InvalidValue, Unavailable
from headway.features.feeds.chunk import CHUNK_ROWS, Chunk
from headway.features.feeds.columns import Columns, plain
from headway.features.feeds.watermark import Watermark

if TYPE_CHECKING:
    import sqlalchemy as sa

_REMEMBERED = 1_000_000
_RETRY_AFTER_S = 5.0


class QueryFeed:
    """One query of one database, through SQLAlchemy."""

    def __init__(
        self, database: str, query: str, watermark: str, columns: Columns, *, lookback: str | None = None
    ) -> None:
        """Connect on first use.

        Args:
            database: Its URL, such as `sqlite:////data/shop.db` or `postgresql+psycopg://…`.
            query: A SELECT without ORDER BY; its columns are the source's, or are renamed.
            watermark: One of its columns, which only grows as rows appear, but for the lookback.
            columns: Which columns become which.
            lookback: How far back late rows may lie: a duration, or a number where the watermark is one.
        """
        import sqlalchemy as sa

        self._columns = columns
        self._watermark = watermark
        self._lookback = lookback
        self._query = query.strip().rstrip(";")
        try:
            self._engine = sa.create_engine(database)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
            raise InvalidValue("--database", str(error), hint="dialect+driver://user@host/name") from None
        except ImportError as error:
            raise DefinitionError(
                f"the driver is not installed: {error}", field="--database", expected="its package in the environment"
            ) from None
        url = self._engine.url
        path = url.database or ""
        if url.get_backend_name() == "sqlite" and path and not path.startswith("file:") and not Path(path).exists():
            # SQLite would make an empty one
            raise InvalidValue("--database", f"there is no file {path}")
        shown = url.render_as_string(hide_password=True)
        self.name = f"query:{shown}:{watermark}:{self._query}"
        self.ignored: list[str] = []
        self._seen: dict[bytes, Any] = {}
        """What this process has published and would read again: digest → watermark."""

    def chunks(self, position: bytes | None) -> Iterator[Chunk]:
        """Read from a position on."""
        import sqlalchemy as sa

        last = None if position is None else msgspec.json.decode(position, type=Watermark | None)
        since = None if last is None else last.before(self._lookback)
        top = None if last is None else last.value
        self._forget(since)
        try:
            with self._engine.connect().execution_options(stream_results=True) as connection:
                result = connection.execute(self._statement(since))
                names = list(result.keys())
                if self._watermark not in names:
                    raise InvalidValue("--watermark", f"the query has no column {self._watermark!r}")
                wanted = self._columns.find(names, "query")
                self.ignored = self._columns.ignored(names)
                at, before = names.index(self._watermark), 0
                while rows := result.fetchmany(CHUNK_ROWS):
                    chunk, fresh = Chunk(position=b"", label="query row"), dict[bytes, Any]()
                    for number, row in enumerate(rows, before + 1):
                        digest = hashlib.blake2b(_shown(row), digest_size=16).digest()
                        if digest not in self._seen:
                            fresh[digest] = row[at]
                            self._take(chunk, number, row, wanted, null=row[at] is None)
                            top = _later(top, row[at])
                    before += len(rows)
                    if chunk.read:
                        chunk.position = msgspec.json.encode(None if top is None else Watermark.of(top))
                        yield chunk
                        self._remember(fresh)
        except sa.exc.DBAPIError as error:
            raise _failed(error) from error
        except sa.exc.SQLAlchemyError as error:
            raise InvalidValue("--query", str(error).partition("\n")[0]) from None

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _statement(self, since: Any) -> sa.Select[Any]:
        import sqlalchemy as sa

        # a colon in the query would stand for a parameter
        inner = sa.text(self._query.replace(":", "\\:")).columns(sa.column(self._watermark)).subquery("fed")
        column = inner.c[self._watermark]
        statement: sa.Select[Any] = sa.select(sa.literal_column("*")).select_from(inner).order_by(column)
        return statement if since is None else statement.where(sa.or_(column >= since, column.is_(None)))

    def _take(self, chunk: Chunk, number: int, row: Any, wanted: list[tuple[int, str, str]], *, null: bool) -> None:
        if null:
            chunk.refuse(number, _shown(row), f"{self._watermark}: is null, and is the watermark")
            return
        try:
            values = {name: plain(row[place], dtype, name) for place, name, dtype in wanted}
            chunk.add(number, self._columns.encode(values))
        except ValueError as error:
            chunk.refuse(number, _shown(row), str(error))

    def _remember(self, fresh: dict[bytes, Any]) -> None:
        if len(self._seen) + len(fresh) > _REMEMBERED:
            self._seen.clear()
        self._seen |= fresh

    def _forget(self, since: Any) -> None:
        """Keep in mind only what the next reading meets again."""
        if since is not None:
            self._seen = {digest: mark for digest, mark in self._seen.items() if mark is None or mark >= since}


def _later(top: Any, mark: Any) -> Any:
    """Return the greater; rows of a lookback never move a position back."""
    if top is None or mark is None:
        return top if mark is None else mark
    try:
        return max(top, mark)
    except TypeError:
        raise InvalidValue(
            "--watermark", f"has values of the types {type(top).__name__} and {type(mark).__name__}"
        ) from None


def _shown(row: Any) -> bytes:
    return repr(tuple(row)).encode(errors="replace")


def _failed(error: Any) -> HeadwayError:
    said = str(error.orig if error.orig is not None else error).partition("\n")[0]
    return Unavailable(
        f"the database does not answer the query: {said}", retry_after_s=_RETRY_AFTER_S, hint="--database, --query"
    )
