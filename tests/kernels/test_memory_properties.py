"""Any read from a memory, by the compiled CPU kernels, is the reference's in float64."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.kernels.memory_calls import read_agrees_with_the_reference, reads


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=reads())
def test_every_read_agrees_with_the_reference_in_float64(cpp: None, call: dict[str, Any]) -> None:
    read_agrees_with_the_reference(call, "cpp", "cpu")
