"""The shots as a table."""

from __future__ import annotations

import csv as _csv
import io

from vtsum.markup import csv_cell
from vtsum.summary.schema import SummaryDocument

_SHOT = ("index", "start", "end", "saliency", "liveliness", "score", "rank", "chosen", "reason")
_CLIP = ("start", "end", "summary_start", "summary_end", "keyframe")


def csv(document: SummaryDocument) -> str:
    """One row for each shot, times in seconds; the columns of a shot that is not shown are empty (RFC 4180)."""
    out = io.StringIO()
    rows = _csv.writer(out)
    rows.writerow([*_SHOT, *(f"clip_{name}" if name in _SHOT else name for name in _CLIP)])
    for shot in document["shots"]:
        own, clip = dict(shot), dict(shot["clip"] or {})
        cells = [*(own[name] for name in _SHOT), *(clip.get(name, "") for name in _CLIP)]
        rows.writerow([csv_cell(cell) for cell in cells])
    return out.getvalue()
