"""The table of what `--about` brings into a summary, from its records."""

from __future__ import annotations

from bench.kit.tables import Tables, newest, records, table

HEAD = ["words by", "sentences asked about", "found", "half shown: without → with", "seconds shown: without → with"]


def topics() -> str:
    """The newest record of each source of words."""
    found = newest(records("topics"), "words")
    found.pop(("pictures",), None)
    rows = []
    for line in found.values():
        half, seconds = line["half_shown"], line["seconds_shown"]
        asked = f"{line['sentences']}, of {line['seconds']:.1f} s"
        arrows = [f"{half[0]} → {half[1]}", f"{seconds[0]:.1f} → {seconds[1]:.1f}"]
        rows.append([line["words"], asked, str(line["matched"]), *arrows])
    if not rows:
        return table(HEAD, rows)
    last = list(found.values())[-1]
    about = f"{last['videos']} drawn videos, summaries of {last['budget']}. `python -m bench.summary.topics`, commit "
    return table(HEAD, rows, f"{about}{last['commit']}.")


def pictures() -> str:
    """The newest record of what is asked of the pictures."""
    found = list(newest(records("topics"), "words", words="pictures").values())
    rows = [
        [
            *(str(line["sceneries"]), " → ".join(f"{100 * share:.0f}%" for share in line["shares"])),
            f"{line['more']}, {line['less']}",
        ]
        for line in found
    ]
    head = ["sceneries asked about", "of the summary they take: without → with", "more of it, less"]
    below = [
        f"{line['videos']} drawn videos, summaries of {line['budget']}. `python -m bench.summary.topics`, commit "
        f"{line['commit']}."
        for line in found
    ]
    return table(head, rows, *below)


TABLES: Tables = {"topics": topics, "topics_pictures": pictures}
