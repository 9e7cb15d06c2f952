"""Couchbase: a server or cluster, over HTTP."""
