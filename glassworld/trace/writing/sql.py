"""Answer SQL over the tables of a trace, with DuckDB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glassworld.errors import MissingExtraError, TraceError
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.writing.tables import trace_tables


@dataclass(frozen=True)
class QueryResult:
    """The columns and the first rows of an answer; `more` says whether there are others."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool


def query_trace(analysis: Analysis, query: str, most: int | None = None) -> QueryResult:
    """Return the answer to a query, at most `most` rows of it.

    The query reads the tables of `trace_tables` alone: no files and no network. Raises `TraceError`
    for a query that DuckDB refuses, and `MissingExtraError` without DuckDB.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("duckdb", "sql") from error
    tables = trace_tables(analysis)
    with duckdb.connect(":memory:") as database:
        for name, table in tables.items():
            database.register(name, table)
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        try:
            result = database.execute(query)
            if result is None or result.description is None:
                raise TraceError("the query is empty; try: SELECT name, cpu_ns FROM tags")
            columns = [column[0] for column in result.description]
            rows = result.fetchall() if most is None else result.fetchmany(most + 1)
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0]
            raise TraceError(
                f"SQL: {reason}; the tables are {', '.join(tables)}; use those"
            ) from error
    return QueryResult(columns, rows[:most], most is not None and len(rows) > most)
