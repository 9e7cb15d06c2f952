"""Collections: list, make, describe and drop them."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Response

from app.http.context import Service, check_name
from app.http.problems import Refused
from app.http.routes.base import operation
from app.http.schemas.common import CollectionBody, NewCollection
from backends.base import CollectionNotFound, CollectionSpec, IndexSpec

Name = Annotated[str, Path(max_length=63, description="The collection's name.")]


def add_routes(app: FastAPI, service: Service) -> None:
    """``/v1/collections`` and ``/v1/collections/{name}``."""

    @app.get("/v1/collections", tags=["collections"], **operation("read"))
    def list_collections() -> list[CollectionBody]:
        """Every collection of the backend with its size and encoder."""
        found = []
        for name in service.backend.collections():
            try:
                found.append(described(service, name))
            except CollectionNotFound:
                # Dropped by somebody else since.
                continue
        return found

    @app.get("/v1/collections/{name}", tags=["collections"], **operation("read", 404, 422))
    def collection(name: Name) -> CollectionBody:
        """One collection."""
        check_name(name)
        return described(service, name)

    @app.post("/v1/collections", tags=["collections"], status_code=201, **operation("write", 409, body="small"))
    def create_collection(body: NewCollection) -> CollectionBody:
        """Make an empty collection for this service's encoder."""
        index = IndexSpec(kind=body.index, quantization=body.quantization)
        spec = CollectionSpec(
            body.name, service.encoder.dim, metric="cosine", encoder=service.encoder.fingerprint, index=index
        )
        service.backend.create(spec)
        service.forget(body.name)
        return described(service, body.name)

    @app.delete(
        "/v1/collections/{name}",
        tags=["collections"],
        status_code=204,
        response_class=Response,
        **operation("admin", 404, 409, 422),
    )
    def drop_collection(name: Name) -> Response:
        """Remove a collection, all it holds, and its uploaded files that no other has; folders stay as they are."""
        check_name(name)
        service.backend.describe(name)
        with service.jobs.without(name) as free:
            if not free:
                raise Refused(409, f"a job is filling {name!r}: cancel it first")
            service.backend.drop(name)
            service.forget(name)
            service.uploads.forget(name)
        return Response(status_code=204)


def described(service: Service, name: str) -> CollectionBody:
    """The body of a collection. Raises `CollectionNotFound`."""
    spec = service.backend.describe(name)
    return CollectionBody(
        name=spec.name,
        count=service.backend.count(name),
        dim=spec.dim,
        metric=spec.metric,
        encoder=spec.encoder,
        index=spec.index.kind,
        searchable=service.encoders.may_have(spec.encoder),
        default=spec.name == service.collection,
    )
