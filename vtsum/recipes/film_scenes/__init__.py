"""The scenes of the demonstration film, drawn by program."""
