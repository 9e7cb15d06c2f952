"""Encoders, search and relevance: words and pictures in one vector space."""
