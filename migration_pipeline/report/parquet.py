"""Parquet files written in batches: memory does not grow with the number of rows."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def write_batches(
    path: Path,
    schema: Any,  # noqa: ANN401 - pyarrow has no types
    batches: Iterable[Sequence[Any]],
    columns: Callable[[Any], list[Sequence[Any]]],
) -> int:
    """Write rows as they come, a group of rows for each batch; return how many.

    Args:
        path: of the file.
        schema: pyarrow's.
        batches: of rows.
        columns: of a batch of rows, in the order of the schema.
    """
    import pyarrow as pa  # noqa: PLC0415 - a third of a second that no other command need spend
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            arrays = [pa.array(column, kind) for column, kind in zip(columns(batch), schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=len(batch))
            written += len(batch)
    return written


def moments() -> Any:  # noqa: ANN401 - pyarrow has no types
    """The type of a column of moments."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    return pa.timestamp("us", tz="UTC")
