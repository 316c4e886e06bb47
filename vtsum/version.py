"""The version, in a module that imports nothing: setup and reports read it."""

__version__ = "0.1.0"
