"""ClickHouse, chDB (its engine in process) and MyScale."""
