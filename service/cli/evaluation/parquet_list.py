"""Lists of labelled videos in Parquet files (``tubelet[parquet]``)."""

from pathlib import Path

from tubelet.models.errors import MissingExtra

PARQUET = ".parquet"


class UnreadableTable(ValueError):
    """The file is no Parquet file."""


def parquet_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a table as text, by the names of its columns in lower case; "" stands for no value.

    Columns of other values than text and numbers, such as vectors, are left out.

    Raises:
        OSError: the file cannot be read.
        UnreadableTable: it is no Parquet file.
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtra(f"{file} needs pyarrow: pip install 'tubelet[parquet]'") from None
    try:
        with file.open("rb") as content:
            table = pyarrow.parquet.read_table(content)
    except pyarrow.ArrowException as error:
        raise UnreadableTable(f"it is no Parquet file: {str(error).splitlines()[0]}") from None
    columns = {name.strip().lower(): table.column(name) for name in table.column_names}
    texts: dict[str, list[str]] = {}
    for name, column in columns.items():
        kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
        if pyarrow.types.is_nested(kind) or pyarrow.types.is_binary(kind):
            continue
        texts[name] = ["" if value is None else str(value).strip() for value in column.to_pylist()]
    return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
