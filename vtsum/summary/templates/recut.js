// The command that makes the summary again, with what was ticked.
const WINDOWS = /^\/[A-Za-z]:\//;
const quoted = (word, windows) => {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  return windows ? `"${word}"` : `'${word.replace(/'/g, "'\\''")}'`;
};
const folder = () => {
  if (location.protocol !== "file:") return "FOLDER";
  try {
    const path = decodeURIComponent(location.pathname.replace(/\/[^/]*$/, ""));
    return WINDOWS.test(path) ? path.slice(1) : path || "/";
  } catch {  // a name that is no UTF-8
    return "FOLDER";
  }
};
const exact = (t) => {  // to the millisecond, as `--keep` reads it
  const ms = Math.round(t * 1000), rest = String(ms % 1000).padStart(3, "0").replace(/0+$/, "");
  return clock(ms / 1000) + (rest ? `.${rest}` : "");
};
const ticked = (kind) => {
  const spans = [];
  for (const row of all(".shots li")) {
    if (!row.querySelector(`.${kind}`).checked) continue;
    const [from, to] = row.dataset.spans.split("-").map(Number), last = spans.at(-1);
    if (last && Math.abs(last[1] - from) < 0.0005) last[1] = to;
    else spans.push([from, to]);
  }
  return spans.map(([from, to]) => `${exact(from)}-${exact(to)}`).join(",");
};

const form = byId("recut");
if (form) {
  const before = { keep: ticked("keep"), drop: ticked("drop") };
  const build = () => {
    const windows = WINDOWS.test(location.pathname), words = ["vtsum", "recut", folder()];
    const budget = byId("budget").value.trim();
    if (budget && budget !== data.budget) words.push("--budget", budget);
    for (const kind of ["keep", "drop"]) {
      const spans = ticked(kind);
      if (spans !== before[kind]) words.push(`--${kind}`, spans);
    }
    byId("command").textContent = words.map((word) => (word ? quoted(word, windows) : windows ? '""' : "''")).join(" ");
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", build);
  byId("all-shots").addEventListener("change", (event) => {
    const other = { keep: ".drop", drop: ".keep" }[event.target.className];
    if (!other) return;
    if (event.target.checked) event.target.closest("li").querySelector(other).checked = false;
    build();
  });
  byId("copy-command").addEventListener("click", (event) => copy(byId("command").textContent, event.currentTarget));
  build();
}
