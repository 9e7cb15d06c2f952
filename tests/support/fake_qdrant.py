"""A fake Qdrant server on loopback: the published HTTP and gRPC interfaces over the client's local mode.

It is no Qdrant. Each HTTP body is validated by the client's own models of the OpenAPI contract (which
forbid unknown fields), each gRPC message is one of the published protocol; the answer is local mode's.
So it shows that requests are well formed and what they mean, and nothing of indexing or speed.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from pydantic import BaseModel, ValidationError
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as q
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

VERSION = "1.16.0"


class Refusal(Exception):
    """An answer that is an error: HTTP status, gRPC code, text."""

    def __init__(self, status: int, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status, self.code = status, code


class Local:
    """Local mode, one call at a time, with the parts of the interface that the server has on top."""

    def __init__(self, key: str | None) -> None:
        self.client = QdrantClient(location=":memory:", force_disable_check_same_thread=True)
        self.key = key
        self.params: list[models.SearchParams] = []
        self.created: dict[str, models.CreateCollection] = {}
        self.failure: Refusal | None = None
        self._indexes: dict[str, dict[str, models.PayloadIndexInfo]] = {}
        self._lock = threading.RLock()

    def call(self, key: str | None, action: Callable[[], Any]) -> Any:
        """Run one request, or raise `Refusal`."""
        if self.key is not None and key != self.key:
            raise Refusal(401, grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key or an Authorization token")
        if self.failure is not None:
            raise self.failure
        try:
            with self._lock:
                return action()
        except ValueError as error:
            if "not found" in str(error):
                raise Refusal(404, grpc.StatusCode.NOT_FOUND, f"Not found: {error}") from None
            raise Refusal(400, grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}") from None

    def create(self, name: str, body: models.CreateCollection) -> bool:
        if self.client.collection_exists(name):
            raise Refusal(409, grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")
        self.created[name] = body
        self._indexes[name] = {}
        return self.client.create_collection(name, body.vectors, body.sparse_vectors, metadata=body.metadata)

    def info(self, name: str) -> models.CollectionInfo:
        return self.client.get_collection(name).model_copy(update={"payload_schema": self._indexes.get(name, {})})

    def drop(self, name: str) -> bool:
        return self.client.delete_collection(name)

    def index(self, name: str, body: models.CreateFieldIndex) -> models.UpdateResult:
        self.client.get_collection(name)
        kind = models.PayloadSchemaType(body.field_schema)
        self._indexes[name][body.field_name] = models.PayloadIndexInfo(data_type=kind, points=0)
        return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)

    def query(self, name: str, request: models.QueryRequest) -> models.QueryResponse:
        if request.params is not None:
            self.params.append(request.params)
        (answer,) = self.client.query_batch_points(name, [request.model_copy(update={"params": None})])
        return answer


class FakeQdrant:
    """The fake, listening on two free ports of 127.0.0.1 until `close`."""

    def __init__(self, key: str | None = None) -> None:
        self.local = Local(key)
        handler = type("Handler", (Handler,), {"local": self.local})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._grpc = grpc.server(ThreadPoolExecutor(12), options=options)
        q.add_QdrantServicer_to_server(Root(self.local), self._grpc)
        q.add_CollectionsServicer_to_server(Collections(self.local), self._grpc)
        q.add_PointsServicer_to_server(Points(self.local), self._grpc)
        self.port = self._http.server_address[1]
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()

    def url(self, *, prefer_grpc: bool) -> str:
        flag = "true" if prefer_grpc else "false"
        return f"qdrant://127.0.0.1:{self.port}?grpc_port={self.grpc_port}&prefer_grpc={flag}&timeout_s=30"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._grpc.stop(None).wait()
        self.local.client.close()


class Handler(BaseHTTPRequestHandler):
    """The routes of the OpenAPI contract that a Sightline client uses."""

    local: Local
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            result = self.local.call(self.headers.get("api-key"), lambda: self._route(body))
            self._send(200, result if self.path == "/" else {"result": result, "status": "ok", "time": 0.0})
        except ValidationError as error:
            self._send(422, {"status": {"error": f"Format error in JSON body: {error}"}, "time": 0.0})
        except Refusal as error:
            self._send(error.status, {"status": {"error": str(error)}, "time": 0.0})

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _send(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, body: bytes) -> Any:
        path = self.path.partition("?")[0]
        if path == "/":
            return {"title": "a fake of Qdrant", "version": VERSION}
        if path == "/collections":
            return plain(self.local.client.get_collections())
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert match is not None, path
        name, rest = match[1], f"{self.command} {match[2] or '/'}"
        return plain(self._on_collection(name, rest, body))

    def _on_collection(self, name: str, route: str, body: bytes) -> Any:
        local, client = self.local, self.local.client
        if route == "GET /":
            return local.info(name)
        if route == "GET /exists":
            return {"exists": client.collection_exists(name)}
        if route == "PUT /":
            return local.create(name, models.CreateCollection.model_validate_json(body))
        if route == "PATCH /":
            return client.update_collection(name, metadata=models.UpdateCollection.model_validate_json(body).metadata)
        if route == "DELETE /":
            return local.drop(name)
        if route == "PUT /index":
            return local.index(name, models.CreateFieldIndex.model_validate_json(body))
        if route == "PUT /points":
            return client.upsert(name, models.PointsList.model_validate_json(body).points)
        if route == "POST /points":
            wanted = models.PointRequest.model_validate_json(body)
            return client.retrieve(name, wanted.ids, wanted.with_payload, wanted.with_vector)
        if route == "POST /points/delete":
            return client.delete(name, selector(json.loads(body)))
        if route == "POST /points/count":
            count = models.CountRequest.model_validate_json(body)
            assert count.exact
            return client.count(name, count.filter)
        if route == "POST /points/scroll":
            page = models.ScrollRequest.model_validate_json(body)
            points, following = client.scroll(
                name,
                page.filter,
                page.limit,
                offset=page.offset,
                with_payload=page.with_payload,
                with_vectors=page.with_vector,
            )
            return models.ScrollResult(points=points, next_page_offset=following)
        if route == "POST /points/query":
            return local.query(name, models.QueryRequest.model_validate_json(body))
        if route == "POST /points/query/batch":
            batch = models.QueryRequestBatch.model_validate_json(body)
            return [local.query(name, request) for request in batch.searches]
        raise AssertionError(f"the fake has no {route}")


def selector(data: dict[str, Any]) -> Any:
    """Which points a request names."""
    kind = models.PointIdsList if "points" in data else models.FilterSelector
    return kind.model_validate(data)


def plain(value: Any) -> Any:
    """A model, or a list of them, as JSON."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else value


class Servicer:
    """What the gRPC services share: the key, and errors as status codes."""

    def __init__(self, local: Local) -> None:
        self.local = local

    def _call(self, context: grpc.ServicerContext, action: Callable[[], Any]) -> Any:
        key = dict(context.invocation_metadata()).get("api-key")
        try:
            return self.local.call(key, action)
        except Refusal as error:
            context.abort(error.code, str(error))
        except Exception as error:
            sys.stderr.write(f"the fake failed: {error!r}\n")
            context.abort(grpc.StatusCode.INTERNAL, repr(error))


class Root(Servicer, q.QdrantServicer):
    def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
        return q.HealthCheckReply(title="a fake of Qdrant", version=VERSION)


class Collections(Servicer, q.CollectionsServicer):
    """The service `Collections`."""

    def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        listed = self._call(context, self.local.client.get_collections).collections
        return q.ListCollectionsResponse(collections=[q.CollectionDescription(name=c.name) for c in listed])

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        info = self._call(context, lambda: self.local.info(request.collection_name))
        return q.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def CollectionExists(self, request: Any, context: Any) -> Any:  # noqa: N802
        exists = self._call(context, lambda: self.local.client.collection_exists(request.collection_name))
        return q.CollectionExistsResponse(result=q.CollectionExists(exists=exists))

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        sparse = GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)
        body = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors=sparse,
            metadata=GrpcToRest.convert_payload(request.metadata),
            optimizers_config=GrpcToRest.convert_optimizers_config_diff(request.optimizers_config)
            if request.HasField("optimizers_config")
            else None,
        )
        done = self._call(context, lambda: self.local.create(request.collection_name, body))
        return q.CollectionOperationResponse(result=done)

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        name, metadata = request.collection_name, GrpcToRest.convert_payload(request.metadata)
        done = self._call(context, lambda: self.local.client.update_collection(name, metadata=metadata))
        return q.CollectionOperationResponse(result=done)

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        return q.CollectionOperationResponse(
            result=self._call(context, lambda: self.local.drop(request.collection_name))
        )


class Points(Servicer, q.PointsServicer):
    """The service `Points`."""

    def _updated(self, result: models.UpdateResult) -> Any:
        return q.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        return self._updated(self._call(context, lambda: self.local.client.upsert(request.collection_name, points)))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        chosen = GrpcToRest.convert_points_selector(request.points)
        return self._updated(self._call(context, lambda: self.local.client.delete(request.collection_name, chosen)))

    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        rows = self._call(
            context,
            lambda: self.local.client.retrieve(
                request.collection_name,
                [GrpcToRest.convert_point_id(point) for point in request.ids],
                GrpcToRest.convert_with_payload_selector(request.with_payload),
                GrpcToRest.convert_with_vectors_selector(request.with_vectors),
            ),
        )
        return q.GetResponse(result=[grpc_record(row) for row in rows])

    def Scroll(self, request: Any, context: Any) -> Any:  # noqa: N802
        rows, following = self._call(
            context,
            lambda: self.local.client.scroll(
                request.collection_name,
                GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None,
                request.limit,
                offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
                with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
                with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
            ),
        )
        page = None if following is None else RestToGrpc.convert_extended_point_id(following)
        return q.ScrollResponse(result=[grpc_record(row) for row in rows], next_page_offset=page)

    def Count(self, request: Any, context: Any) -> Any:  # noqa: N802
        assert request.exact
        condition = GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None
        counted = self._call(context, lambda: self.local.client.count(request.collection_name, condition))
        return q.CountResponse(result=RestToGrpc.convert_count_result(counted))

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        kind = q.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
        body = models.CreateFieldIndex(field_name=request.field_name, field_schema=kind)
        return self._updated(self._call(context, lambda: self.local.index(request.collection_name, body)))

    def _query(self, request: Any) -> Any:
        found = self.local.query(request.collection_name, rest_query(request)).points
        return [RestToGrpc.convert_scored_point(point) for point in found]

    def Query(self, request: Any, context: Any) -> Any:  # noqa: N802
        return q.QueryResponse(result=self._call(context, lambda: self._query(request)))

    def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        answers = self._call(context, lambda: [self._query(one) for one in request.query_points])
        return q.QueryBatchResponse(result=[q.BatchResult(result=answer) for answer in answers])


def grpc_record(row: models.Record) -> Any:
    """A record of local mode as the message; the conversion wants a payload even if none was asked for."""
    return RestToGrpc.convert_record(row.model_copy(update={"payload": row.payload or {}}))


def rest_query(request: Any) -> models.QueryRequest:
    """One query of the gRPC interface as one of the HTTP interface."""
    return models.QueryRequest(
        query=GrpcToRest.convert_query(request.query),
        using=request.using,
        filter=GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None,
        params=GrpcToRest.convert_search_params(request.params) if request.HasField("params") else None,
        limit=request.limit,
        with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
    )
