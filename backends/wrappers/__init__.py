"""Backends around a backend: each passes on to `inner` what it does not do itself."""
