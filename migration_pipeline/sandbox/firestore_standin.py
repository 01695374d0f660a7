"""A stand-in for the Firestore emulator, for machines without it: the part of the protocol that the project uses.

In memory; commits are atomic and obey preconditions. `python firestore_standin.py PORT` listens on 127.0.0.1 only.
It speaks gRPC with the messages of google-cloud-firestore: BatchGetDocuments, Commit, BatchWrite, RunQuery over one
collection without filters, ListDocuments, ListCollectionIds. Anything else is answered with UNIMPLEMENTED.
"""

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import grpc
from google.cloud.firestore_v1.types import document, firestore, write
from google.protobuf.timestamp_pb2 import Timestamp

Document = document.Document.pb()
Value = document.Value.pb()
_PATH_PART = re.compile(r"`((?:[^`\\]|\\.)*)`|([^.`]+)")
_PAGE = 300
_MOST_WRITES, _MOST_BYTES = 500, 1024 * 1024
"""Of one commit, and of one document (Firebase documentation, "Usage and limits")."""
_MOST_MESSAGE_BYTES = 10 * 1024 * 1024


class Refused(Exception):  # noqa: N818 - an answer to the client
    """The request is answered with an error."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stored(NamedTuple):
    """A document: its message, holding name, fields and times."""

    message: Any
    updated: int  # microseconds; grows with every change


class Documents:
    """All documents, by name."""

    def __init__(self) -> None:
        self._stored: dict[str, Stored] = {}
        self._turn = threading.RLock()
        self._clock = 0

    def get(self, name: str, mask: Sequence[str] | None) -> Any | None:  # noqa: ANN401 - a protobuf message
        with self._turn:
            stored = self._stored.get(name)
        if stored is None or mask is None:
            return stored.message if stored else None
        found = Document(name=name, create_time=stored.message.create_time, update_time=stored.message.update_time)
        for path in mask:
            value = _value_at(stored.message.fields, parts(path))
            if value is not None:
                _set(found.fields, parts(path), value)
        return found

    def names(self, parent: str, collection: str) -> list[str]:
        """Documents directly in a collection, in name order."""
        start = f"{parent}/{collection}/"
        with self._turn:
            return sorted(name for name in self._stored if name.startswith(start) and "/" not in name[len(start) :])

    def collections(self, parent: str) -> list[str]:
        """Collections below a document, or below the root."""
        with self._turn:
            inside = [name[len(parent) + 1 :] for name in self._stored if name.startswith(f"{parent}/")]
        return sorted({rest.split("/")[0] for rest in inside})

    def commit(self, writes: Sequence[Any]) -> tuple[list[Any], Any]:
        """Make all writes, or none where one is refused."""
        if len(writes) > _MOST_WRITES:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"maximum {_MOST_WRITES} writes allowed per request")
        with self._turn:
            before = dict(self._stored)
            self._clock = max(self._clock + 1, time.time_ns() // 1000)
            try:
                results = [self._write(item) for item in writes]
            except Refused:
                self._stored = before
                raise
            return results, _timestamp(self._clock)

    def _write(self, item: Any) -> Any:  # noqa: ANN401 - protobuf messages
        kind = item.WhichOneof("operation")
        if kind not in {"update", "delete"} or item.update_transforms:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "field transforms are not part of the stand-in")
        name = item.update.name if kind == "update" else item.delete
        old = self._stored.get(name)
        if item.HasField("current_document"):
            _check(name, old, item.current_document)
        if kind == "delete":
            self._stored.pop(name, None)
            return write.WriteResult.pb()(update_time=_timestamp(self._clock))
        new = Document(name=name)
        if item.HasField("update_mask") and old is not None:
            _copy_fields(old.message.fields, new.fields)
        if item.HasField("update_mask"):
            for path in item.update_mask.field_paths:
                _set(new.fields, parts(path), _value_at(item.update.fields, parts(path)))
        else:
            _copy_fields(item.update.fields, new.fields)
        size = new.ByteSize()  # near what Firestore counts
        if size > _MOST_BYTES:
            said = f"Document '{name}' cannot be written because its size ({size:,} bytes) exceeds the maximum allowed"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{said} size of {_MOST_BYTES:,} bytes.")
        # Firestore leaves the update time of a document alone where a write changes nothing.
        same = old is not None and dict(old.message.fields) == dict(new.fields)
        updated = old.updated if old is not None and same else self._clock
        new.update_time.CopyFrom(_timestamp(updated))
        new.create_time.CopyFrom(old.message.create_time if old else _timestamp(self._clock))
        self._stored[name] = Stored(new, updated)
        return write.WriteResult.pb()(update_time=_timestamp(updated))


def _check(name: str, old: Stored | None, precondition: Any) -> None:  # noqa: ANN401 - a protobuf message
    condition = precondition.WhichOneof("condition_type")
    if condition == "exists" and precondition.exists != (old is not None):
        if precondition.exists:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"No document to update: {name}")
        raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Document already exists: {name}")
    if condition == "update_time":
        if old is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"No document to update: {name}")
        if _microseconds(precondition.update_time) != old.updated:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, "the stored version does not match the required base version"
            )


def parts(path: str) -> list[str]:
    """The segments of a field path, unquoted."""
    return [
        re.sub(r"\\(.)", r"\1", quoted) if quoted or not plain else plain for quoted, plain in _PATH_PART.findall(path)
    ]


def _value_at(fields: Any, segments: Sequence[str]) -> Any | None:  # noqa: ANN401 - protobuf messages
    for number, segment in enumerate(segments):
        if segment not in fields:
            return None
        value = fields[segment]
        if number == len(segments) - 1:
            return value
        if value.WhichOneof("value_type") != "map_value":
            return None
        fields = value.map_value.fields
    return None


def _set(fields: Any, segments: Sequence[str], value: Any | None) -> None:  # noqa: ANN401 - as above
    first, *rest = segments
    if rest:
        if value is None and first not in fields:
            return
        inner = fields[first]
        if inner.WhichOneof("value_type") != "map_value":
            inner.map_value.SetInParent()
        _set(inner.map_value.fields, rest, value)
    elif value is None:
        fields.pop(first, None)
    else:
        fields[first].CopyFrom(value)


def _copy_fields(source: Any, target: Any) -> None:  # noqa: ANN401 - as above
    for name, value in source.items():
        target[name].CopyFrom(value)


def _timestamp(microseconds: int) -> Any:  # noqa: ANN401 - as above
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def _microseconds(stamp: Any) -> int:  # noqa: ANN401 - as above
    return int(stamp.seconds) * 1_000_000 + int(stamp.nanos) // 1000


class Service:
    """The calls, over the documents."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def batch_get(self, request: Any) -> Iterator[Any]:  # noqa: ANN401 - protobuf messages, here and below
        answer, now = firestore.BatchGetDocumentsResponse.pb(), _timestamp(time.time_ns() // 1000)
        mask = list(request.mask.field_paths) if request.HasField("mask") else None
        for name in request.documents:
            found = self._documents.get(name, mask)
            yield answer(found=found, read_time=now) if found else answer(missing=name, read_time=now)

    def run_query(self, request: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
        answer, now = firestore.RunQueryResponse.pb(), _timestamp(time.time_ns() // 1000)
        query = request.structured_query
        if query.HasField("where") or query.HasField("start_at") or query.HasField("end_at"):
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "filters and cursors are not part of the stand-in")
        names = [name for source in query.from_ for name in self._documents.names(request.parent, source.collection_id)]
        if query.HasField("limit"):
            names = names[: query.limit.value]
        for name in names:
            yield answer(document=self._documents.get(name, None), read_time=now)
        if not names:
            yield answer(read_time=now)

    def commit(self, request: Any) -> Any:  # noqa: ANN401 - as above
        if request.transaction:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, "transactions are not part of the stand-in")
        results, now = self._documents.commit(request.writes)
        return firestore.CommitResponse.pb()(write_results=results, commit_time=now)

    def batch_write(self, request: Any) -> Any:  # noqa: ANN401 - as above
        answer = firestore.BatchWriteResponse.pb()()
        for item in request.writes:
            status, result = answer.status.add(), answer.write_results.add()
            try:
                result.CopyFrom(self._documents.commit([item])[0][0])
            except Refused as error:
                status.code, status.message = error.code.value[0], str(error)
        return answer

    def list_documents(self, request: Any) -> Any:  # noqa: ANN401 - as above
        names = self._documents.names(request.parent, request.collection_id)
        start, size = int(request.page_token or 0), request.page_size or _PAGE
        page = [self._documents.get(name, None) for name in names[start : start + size]]
        token = str(start + size) if start + size < len(names) else ""
        return firestore.ListDocumentsResponse.pb()(documents=page, next_page_token=token)

    def list_collections(self, request: Any) -> Any:  # noqa: ANN401 - as above
        return firestore.ListCollectionIdsResponse.pb()(collection_ids=self._documents.collections(request.parent))


def serve(port: int) -> grpc.Server:
    """Start the server on a port of 127.0.0.1."""
    service = Service(Documents())
    handlers = {
        "BatchGetDocuments": _stream(service.batch_get, firestore.BatchGetDocumentsRequest),
        "RunQuery": _stream(service.run_query, firestore.RunQueryRequest),
        "Commit": _unary(service.commit, firestore.CommitRequest),
        "BatchWrite": _unary(service.batch_write, firestore.BatchWriteRequest),
        "ListDocuments": _unary(service.list_documents, firestore.ListDocumentsRequest),
        "ListCollectionIds": _unary(service.list_collections, firestore.ListCollectionIdsRequest),
    }
    options = [("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES)]
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def _unary(call: Callable[[Any], Any], request: Any) -> Any:  # noqa: ANN401 - grpc has no types
    def answer(message: Any, context: Any) -> Any:  # noqa: ANN401 - as above
        try:
            return call(message)
        except Refused as error:
            context.abort(error.code, str(error))

    return grpc.unary_unary_rpc_method_handler(answer, request.pb().FromString, lambda m: m.SerializeToString())


def _stream(call: Callable[[Any], Iterator[Any]], request: Any) -> Any:  # noqa: ANN401 - as above
    def answer(message: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
        try:
            yield from call(message)
        except Refused as error:
            context.abort(error.code, str(error))

    return grpc.unary_stream_rpc_method_handler(answer, request.pb().FromString, lambda m: m.SerializeToString())


if __name__ == "__main__":
    serve(int(sys.argv[1])).wait_for_termination()
