"""The table of what each source of words gives the text, from its records."""

from __future__ import annotations

from bench.kit.tables import Tables, newest, records, table

ORIGINS = ("heard", "read", "measured")


def text_sources() -> str:
    """Sentences of the text by origin, and the title's, by file and variant."""
    found = newest(records("text_sources"), "file", "variant")
    variants = list(dict.fromkeys(variant for _, variant in found))
    rows = []
    for file in dict.fromkeys(file for file, _ in found):
        row = [file]
        for variant in variants:
            line = found[file, variant]
            counts = ", ".join(f"{line['origins'][name]} {name}" for name in ORIGINS if line["origins"].get(name))
            row.append(f"{counts}; title: {line['title']}")
        rows.append(row)
    commits = ", ".join(dict.fromkeys(line["commit"] for line in found.values()))
    return table(["file", *variants], rows, f"Commit {commits}.")


TABLES: Tables = {"text_sources": text_sources}
