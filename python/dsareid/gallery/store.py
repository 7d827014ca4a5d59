"""Where a gallery's rows are: Milvus by pymilvus, as a folder (Milvus Lite) or on a server; one set of calls.

    crowd.db                      a folder: Milvus Lite runs inside of this process; one process at a time
    http://HOST:PORT/NAME         a server: Milvus standalone or distributed, or `milvus-lite server`

Two collections hold a gallery: NAME its rows, NAME_info one row with what holds for all (GalleryInfo). Writes
are acknowledged when they are in Milvus' log, so a killed call loses at most what it had in hand.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
from pydantic import ValidationError

from dsareid.gallery.rows import (
    FIELDS,
    LONGEST,
    MOST_TAGS,
    GalleryInfo,
    GalleryRow,
    NoGallery,
    RowPrecision,
    quote,
)
from dsareid.gallery.sharing import Served, find_served, in_use, is_free, served_file
from dsareid.ground.errors import DSAError, first_line, first_problem, logger
from dsareid.ground.files import atomic_path, check_writable_folder, hold_lock

SUFFIX = ".db"
TOKEN = "DSAREID_MILVUS_TOKEN"
"""The environment variable with a server's token, or USER:PASSWORD."""
_TIMEOUT = 20.0  # seconds to wait for a server's answer to a small question
_ADDRESS = re.compile(r"(https?://[^/]+)/([A-Za-z_]\w{0,200})")
_COLLECTION = "gallery"  # in a folder, which holds one gallery
_PAGE = 4096  # rows of a query
_METRIC = "L2"


class GalleryStore:
    """An open gallery; a context manager that closes it.

    Args:
        gallery: a path that ends in .db, or an address http://HOST:PORT/NAME.
        create: what to make it with if it does not exist; without, a missing one is an error.

    Raises:
        DSAError: pymilvus is missing; neither of the two; no gallery there, or another program's; another
            process has it open; the server does not answer.
    """

    def __init__(self, gallery: str | os.PathLike[str], create: GalleryInfo | None = None):
        self.name = os.fspath(gallery)
        self._milvus = _pymilvus()
        self.path, self._collection = _place(self.name)
        if self.path and not self.path.exists() and create is None:
            raise NoGallery(f"{self.name}: no such gallery; dsareid gallery add makes one")
        if self.path and self.path.exists() and not self.path.is_dir():
            raise DSAError(f"{self.name}: a gallery is a folder, but this is a file")
        if self.path and create is not None and create.precision != "float32":
            raise DSAError(f"{self.name}: a folder's vectors are float32; a server may hold half precision")
        self.through: int | None = None
        """The process through which a folder that it serves is used."""
        self._shared = False
        self._served_as: str | None = None
        self._client = self._connect()
        try:
            with self._errors():
                self.info = self._read_info() or self._make(create)
                self._check_fields()
                if self._served_as not in (None, self.info.gallery):  # its port is another gallery's by now
                    raise DSAError(in_use(self.path))
                self._client.load_collection(self._collection)
        except BaseException:
            self.close()
            raise

    def share(self) -> None:
        """Let other processes on this machine use a folder through this one until it is closed."""
        if self.path:
            served = Served(address=self._local_address(), process=os.getpid(), gallery=self.info.gallery)
            with atomic_path(served_file(self.path)) as temporary:
                temporary.write_text(served.model_dump_json())
            self._shared = True

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """While rows are written: other writers of a folder wait, as Milvus Lite has one at a time."""
        if self.path is None:
            return contextlib.nullcontext()
        check_writable_folder(self.path.parent)
        return hold_lock(
            self.path.with_name(f"{self.path.name}.writing"), f"{self.name}: waiting for another writer"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is in memory, and give the folder free."""
        self._client.close()
        if self.path and self._shared:
            served_file(self.path).unlink(missing_ok=True)
        if self.path and self.through is None:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self.path))

    # ---- rows ----

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The row with a key, with its vector, as nearest returns it; None if there is none."""
        with self._errors():
            found = self._client.query(
                self._collection, f"key in [{quote(key)}]", [*FIELDS, "vector"], consistency_level="Strong"
            )
        return _with_vector(found[0]) if found else None

    def put(self, rows: Sequence[GalleryRow]) -> None:
        """Add rows, in place of those of the same keys."""
        if not rows:
            return
        with self._errors():
            self._client.upsert(self._collection, [_record(row, self.info.precision) for row in rows])

    def stamps(self, keys: Sequence[str]) -> dict[str, str]:
        """The stamps of the rows with these keys that exist."""
        if not keys:
            return {}
        listed = ", ".join(map(quote, keys))
        found = self._rows(f"key in [{listed}]", ["key", "stamp"])
        return {row["key"]: row["stamp"] for row in found}

    def any(self, where: str) -> bool:
        """Whether a filter leaves a row."""
        with self._errors():
            found = self._client.query(
                self._collection, where or 'key != ""', ["key"], limit=1, consistency_level="Strong"
            )
        return bool(found)

    def count(self, where: str = "") -> int:
        """How many rows a filter leaves."""
        with self._errors():
            (answer,) = self._client.query(self._collection, where, ["count(*)"], consistency_level="Strong")
        return int(answer["count(*)"])

    def rows(self, where: str, fields: Iterable[str]) -> Iterator[Mapping[str, Any]]:
        """The fields of all rows that a filter leaves, a page in memory at a time."""
        if self.path:  # Milvus Lite's iterator sorts all rows anew for each page
            yield from self._rows_by_key(where, list(fields))
            return
        with self._errors():
            pages = self._client.query_iterator(
                self._collection, batch_size=_PAGE, filter=where, output_fields=list(fields)
            )
            try:
                while page := pages.next():
                    yield from page
            finally:
                pages.close()

    def _rows_by_key(self, where: str, fields: list[str]) -> Iterator[Mapping[str, Any]]:
        """The rows by the first digits of their keys, which are hexadecimal."""
        bounds = [f"{start:02x}" for start in range(0, 256, 16)]
        for low, high in zip(bounds, [*bounds[1:], "g"]):
            page = f'key >= "{low}" and key < "{high}"'
            with self._errors():
                found = self._client.query(
                    self._collection,
                    f"({where}) and {page}" if where else page,
                    fields,
                    consistency_level="Strong",
                )
            yield from found

    def remove(self, where: str) -> int:
        """Remove the rows that a filter leaves; how many there were.

        Raises:
            DSAError: some are still there.
        """
        before = self.count(where)
        with self._errors():
            self._client.delete(self._collection, filter=where)
        if left := self.count(where):
            raise DSAError(f"{self.name}: {left:,} of {before:,} rows are still there; remove them again")
        return before

    def nearest(
        self, vectors: np.ndarray, count: int, where: str, parameters: Mapping[str, int]
    ) -> list[list[Mapping[str, Any]]]:
        """The rows that the index finds near each vector, with their vectors, float32 [D] in "vector".

        Args:
            vectors: float32 [Q, D].
            count: how many, at most.
            where: a filter; "" for none.
            parameters: of the index's search, such as ef.
        """
        kind: type = np.float16 if self.info.precision == "float16" else np.float32
        with self._errors():
            answers = self._client.search(
                self._collection,
                data=list(vectors.astype(kind)),
                filter=where,
                limit=count,
                output_fields=[*FIELDS, "vector"],
                search_params={"metric_type": _METRIC, "params": dict(parameters)},
                consistency_level="Strong",
            )
        return [[_with_vector(hit["entity"]) for hit in hits] for hits in answers]

    def size(self) -> int | None:
        """Bytes on the disk; None on a server."""
        if self.path is None:
            return None
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    # ---- inside ----

    def _rows(self, where: str, fields: list[str]) -> list[Mapping[str, Any]]:
        with self._errors():
            found = self._client.query(
                self._collection, where, fields, limit=_PAGE, consistency_level="Strong"
            )
        return list(found)

    def _local_address(self) -> str:
        from milvus_lite.server_manager import server_manager_instance

        return str(server_manager_instance.start_and_get_uri(str(self.path)))  # it runs already

    def _connect(self) -> Any:
        address = str(self.path) if self.path else _address(self.name)[0]
        token = {} if self.path else {"token": os.environ.get(TOKEN, "")}
        if self.path:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DSAError(f"{self.name}: cannot be made: {error.strerror}") from error
            if not is_free(self.path):
                served = find_served(self.path)
                logger.info(f"{self.name}: served by process {served.process}: going through it")
                address, self.through, self._served_as = served.address, served.process, served.gallery
        with self._errors():
            return self._milvus.MilvusClient(address, timeout=_TIMEOUT, **token)

    def _read_info(self) -> GalleryInfo | None:
        """What holds for all rows; None if there is no gallery, or a call was killed while it made one."""
        name = f"{self._collection}_info"
        if name not in self._client.list_collections():
            return None
        try:
            self._client.load_collection(name)
            rows = self._client.query(name, 'key == "info"', ["info"])
            return GalleryInfo.model_validate_json(rows[0]["info"]) if rows else None
        except ValidationError as error:
            raise DSAError(f"{self.name}: not a gallery of dsareid: {first_problem(error)}") from error
        except (KeyError, self._milvus.MilvusException) as error:
            raise DSAError(
                f"{self.name}: not a gallery of dsareid: it does not say of which model"
            ) from error

    def _fields(self, collection: str) -> set[str]:
        return {each["name"] for each in self._client.describe_collection(collection)["fields"]}

    def _check_fields(self) -> None:
        """Raise DSAError if the rows lack a field."""
        if missing := {*FIELDS, "vector", "stamp"} - self._fields(self._collection):
            raise DSAError(
                f"{self.name}: made by another version of dsareid: its rows lack "
                f"{', '.join(sorted(missing))}; make the gallery again"
            )

    def _make(self, info: GalleryInfo | None) -> GalleryInfo:
        """Make both collections; what says that there is a gallery is written last."""
        self._drop_unfinished()
        if info is None:
            raise NoGallery(f"{self.name}: no such gallery; dsareid gallery add makes one")
        self._make_rows(info)
        kinds = self._milvus.DataType
        schema = self._milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.VARCHAR, max_length=64, is_primary=True)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=2)  # Milvus wants one
        schema.add_field("info", kinds.VARCHAR, max_length=65_535)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type=_METRIC)
        name = f"{self._collection}_info"
        self._client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        self._client.upsert(name, [{"key": "info", "vector": [0.0, 0.0], "info": info.model_dump_json()}])
        return info

    def _drop_unfinished(self) -> None:
        """Drop what a call that was killed, or refused by Milvus, had made of a gallery.

        Raises:
            DSAError: it holds rows, or is another program's.
        """
        for name, field in ((self._collection, "stamp"), (f"{self._collection}_info", "info")):
            if name not in self._client.list_collections():
                continue
            if field not in self._fields(name) or int(self._client.get_collection_stats(name)["row_count"]):
                raise DSAError(f"{self.name}: not a gallery of dsareid: it does not say of which model")
            self._client.drop_collection(name)

    def _make_rows(self, info: GalleryInfo) -> None:
        kinds = self._milvus.DataType
        schema = self._milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", kinds.VARCHAR, max_length=64, is_primary=True)
        kind = kinds.FLOAT16_VECTOR if info.precision == "float16" else kinds.FLOAT_VECTOR
        schema.add_field("vector", kind, dim=info.dimension)
        for word in ("stamp", "file"):
            schema.add_field(word, kinds.VARCHAR, max_length=LONGEST)
        for word in ("identity", "camera", "track"):
            schema.add_field(word, kinds.VARCHAR, max_length=LONGEST, nullable=True)
        schema.add_field("mean", kinds.BOOL)
        schema.add_field("time", kinds.INT64, nullable=True)
        schema.add_field("added", kinds.INT64)
        schema.add_field(
            "tags", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=MOST_TAGS, max_length=LONGEST
        )
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type=info.index, metric_type=_METRIC, params=info.parameters)
        self._client.create_collection(
            self._collection, schema=schema, index_params=index, consistency_level="Strong"
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Milvus' errors as DSAErrors that name the gallery."""
        try:
            yield
        except self._milvus.MilvusException as error:
            text = getattr(error, "message", "") or str(error)
            raise DSAError(f"{self.name}: {first_line(ValueError(text))[:300]}") from error


def _pymilvus() -> ModuleType:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it prints of pings while a large index is built
    try:
        import pymilvus
    except ImportError as error:
        raise DSAError(f'galleries need pymilvus: pip install "dsareid[gallery]" ({error})') from error
    for name in ("pymilvus", "milvus_lite", "grpc"):  # they log what they raise
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


def _place(gallery: str) -> tuple[Path | None, str]:
    """The folder, None for a server, and the collection."""
    if "://" in gallery:
        return None, _address(gallery)[1]
    if not gallery.endswith(SUFFIX):
        raise DSAError(
            f"{gallery}: a gallery is a folder whose name ends in {SUFFIX}, or the address of a server, "
            "http://HOST:PORT/NAME"
        )
    return Path(gallery).absolute(), _COLLECTION


def _address(gallery: str) -> tuple[str, str]:
    found = _ADDRESS.fullmatch(gallery)
    if not found:
        raise DSAError(f"{gallery}: the address of a gallery must be http://HOST:PORT/NAME, NAME of letters")
    return found[1], found[2]


def _record(row: GalleryRow, precision: RowPrecision) -> dict[str, Any]:
    record = row._asdict()
    record["tags"] = list(row.tags)
    record["vector"] = row.vector.astype(np.float16 if precision == "float16" else np.float32)
    return record


def _with_vector(entity: Mapping[str, Any]) -> Mapping[str, Any]:
    vector = entity["vector"]
    kind: type = np.float16 if isinstance(vector, bytes) else np.float32
    found: np.ndarray = np.frombuffer(vector, kind) if isinstance(vector, bytes) else np.array(vector, kind)
    return {**entity, "vector": found.astype(np.float32)}
