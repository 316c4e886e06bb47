// What is playing now is marked in the timeline and in every list.
const marked = all("[data-spans]").filter((element) => element.dataset.spans).map((element) => ({
  element, on: false, spans: element.dataset.spans.split(" ").map((span) => span.split("-").map(Number)),
}));

const mark = () => {
  const t = sourceTime();
  playhead.style.left = `${(100 * t) / data.duration}%`;
  curve.setAttribute("aria-valuenow", t.toFixed(1));
  curve.setAttribute("aria-valuetext", clock(t));
  for (const one of marked) {
    const on = one.spans.some(([from, to]) => from <= t + 0.005 && t + 0.005 < to);
    if (on === one.on) continue;
    one.on = on;
    if (on) one.element.setAttribute("aria-current", "true");
    else one.element.removeAttribute("aria-current");
  }
  if (zoom > 1 && !shown().paused) {
    const at = (t / data.duration) * track.clientWidth - scroller.scrollLeft;
    if (at < 0 || at > scroller.clientWidth) scroller.scrollLeft += at - scroller.clientWidth / 10;
  }
};

const follow = () => { mark(); if (!shown().paused && !shown().ended) requestAnimationFrame(follow); };
for (const each of [video, original]) {
  each.addEventListener("play", follow);
  for (const name of ["seeked", "timeupdate", "loadedmetadata"]) each.addEventListener(name, mark);
}

const find = byId("find");
const sift = () => {
  const wish = find.value.trim().toLowerCase(), only = byId("only").checked;
  let count = 0;
  for (const line of all("#said li")) {
    const fits = line.querySelector(".line").textContent.toLowerCase().includes(wish);
    line.hidden = !fits || (only && !line.querySelector(".inside"));
    count += line.hidden ? 0 : 1;
  }
  byId("found").textContent = wish || only ? `${count} found` : "";
};
if (find) for (const id of ["find", "only"]) byId(id).addEventListener("input", sift);

// What is folded prints unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => { for (const each of folded) each.open = false; });

// #t=75, #t=1:15 or #t=1:02:03 is a moment of the source.
const linked = () => {
  const found = /^#t=(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)$/.exec(location.hash);
  return found ? clamp(Number(found[1] || 0) * 3600 + Number(found[2] || 0) * 60 + Number(found[3]), 0, data.duration) : null;
};
