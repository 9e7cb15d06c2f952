"""The exact oracle: NumPy in memory."""

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="exact",
        backend="backends.exact.backend:ExactBackend",
        example="exact://",
        summary="NumPy in memory, the oracle of every test",
        client="numpy",
        library_version="backends.exact.version:of_library",
    ),
)
