"""Language models by name: offline, in process, behind an OpenAI-compatible server, Ollama or a vendor's API."""

from __future__ import annotations

from retrieval.models.base import ModelError, ModelTimeout, ModelTraits
from retrieval.models.factory import load_model
from retrieval.models.traits import traits

__all__ = ["ModelError", "ModelTimeout", "ModelTraits", "load_model", "traits"]
