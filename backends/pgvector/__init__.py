"""PostgreSQL with pgvector: any server, or one run from a Python package."""
