"""Inputs that nobody thought of, for everything that reads a file of a stranger's."""
