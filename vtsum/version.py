"""The version, in the one place that it is written; pyproject.toml reads it here."""

__version__ = "0.2.0"
