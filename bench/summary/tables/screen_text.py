"""The table of reading words on the screen, from its records."""

from __future__ import annotations

from bench.kit.tables import Records, Tables, newest, records, table


def drawn(lines: Records | None = None) -> str:
    """Lines found and letters wrong, of all and of those read alike twice, by height, contrast and movement; what was
    found where there is nothing; cost."""
    all_lines = records("screen_text", lines)
    found = newest(all_lines, "by", "of", case="drawn")
    plain, cost = newest(all_lines, case="plain"), newest(all_lines, case="cost")
    rows = []
    for by, of in sorted(
        found, key=lambda key: (("all", "height", "contrast", "writing", "script").index(key[0]), len(key[1]), key)
    ):
        line = found[by, of]
        name = {"all": "all", "writing": f"{of} writing", "script": f"{of}, likewise"}.get(by, f"{by} {of}")
        shares = [line.get(share) for share in ("found", "wrong", "confirmed", "confirmed_wrong")]
        rows.append([name, str(line["lines"]), *("-" if share is None else f"{share:.1%}" for share in shares)])
    if not rows or not plain or not cost:
        return ""
    every, (empty,), (spent,) = found["all", "all"], plain.values(), cost.values()
    without, with_it = spent["seconds_and_mib"]["no_ocr"], spent["seconds_and_mib"]["ocr"]
    note = (
        f"Of all lines found, {every['precision']:.1%} are right, of those read alike twice "
        f"{every['confirmed_precision']:.1%}; {every['lost']:.1%} of the lines read without a mistake were not. In "
        f"{empty['seconds']:.0f} s of footage without writing {len(empty['lines'])} were found. Reading takes "
        f"{spent['share']:.0%} of the processor time of a whole job of {spent['minutes']} minutes ({with_it[0]:.0f} s; "
        f"{without[0]:.0f} s without) and {with_it[1]} "
        f"MiB at most ({without[1]} without). {every['reader']}, {every['device']}, commit {every['commit']}."
    )
    return table(["lines", "drawn", "found", "letters wrong", "read alike twice", "letters wrong"], rows, note)


TABLES: Tables = {"screen_text": drawn}
