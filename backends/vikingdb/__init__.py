"""VikingDB of Volcengine: a service in the cloud."""

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="vikingdb",
        backend="backends.vikingdb.backend:VikingBackend",
        example="vikingdb://host?project=default",
        summary="VikingDB, a service of Volcengine",
        client="httpcore",
        default_url="vikingdb://api-vikingdb.vikingdb.cn-beijing.volces.com",
        tested="stand-in: ByteDance's open local engine behind the cloud's API",
        harmless=frozenset({"console", "https", "project", "region"}),
        key_variable="SIGHTLINE_VIKINGDB_API_KEY",
        server_version="backends.vikingdb.version:of_server",
    ),
)
