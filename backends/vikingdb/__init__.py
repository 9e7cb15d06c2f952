"""VikingDB: Volcengine's managed vector database, over HTTPS."""
