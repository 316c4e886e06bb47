const curve = byId("curve"), playhead = byId("playhead"), hover = byId("hover");
const scroller = byId("scroller"), track = byId("track"), cuts = byId("cuts");
const MOST = clamp(data.duration / 20, 1, 256);  // zoom: about twenty seconds, or a 256th
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
let zoom = 1, fine = false;

const timeAt = (x) => {
  const box = curve.getBoundingClientRect();
  return clamp((x - box.left) / box.width, 0, 1) * data.duration;
};

const drawAxis = () => {
  const width = track.clientWidth, fits = Math.max(width / 90, 1);
  const step = STEPS.find((s) => data.duration / s <= fits) || STEPS.at(-1);
  byId("axis").replaceChildren(...Array.from({ length: Math.ceil((data.duration * 0.999) / step) }, (_, i) => {
    const label = document.createElement("span"), left = (100 * i * step) / data.duration;
    label.textContent = clock(i * step);
    if (left / 100 * width > width - 60) { label.className = "last"; label.style.right = "0"; }
    else label.style.left = `${left}%`;
    return label;
  }));
};

// All values, where the page came with the extremes that an unzoomed curve shows.
const drawCurve = () => {
  if (fine || zoom === 1) return;
  fine = true;
  const [low, high] = data.range, y = (s) => ((1 - (s - low) / Math.max(high - low, 1e-9)) * 94 + 3).toFixed(1);
  const x = (i) => (clamp((data.first + i) / data.fps / data.duration, 0, 1) * 1000).toFixed(3), last = data.saliency.length;
  const points = data.saliency.map((s, i) => `${x(i)},${y(s)}`);
  const line = `M${points.join("L")}L${x(last)},${y(data.saliency.at(-1))}`;
  byId("line").setAttribute("d", line);
  byId("area").setAttribute("d", `${line}L${x(last)},100L${x(0)},100Z`);
};

const draw = () => {
  track.style.width = `${100 * zoom}%`;
  track.classList.toggle("zoomed", zoom > 1);
  const crowded = cuts.dataset.count * 6 > track.clientWidth;  // marks nearer than six pixels are a slab
  cuts.classList.toggle("crowded", crowded);
  if (byId("crowded")) byId("crowded").hidden = !crowded;
  byId("zoom-in").disabled = zoom >= MOST;
  byId("zoom-out").disabled = byId("zoom-all").disabled = zoom <= 1;
  drawCurve();
  drawAxis();
};

// `t` stays where it is in the window, or comes to its middle.
const zoomTo = (wish, t = sourceTime(), x = null) => {
  zoom = clamp(wish, 1, MOST);
  draw();
  const at = x === null ? scroller.clientWidth / 2 : x - scroller.getBoundingClientRect().left;
  scroller.scrollLeft = (t / data.duration) * track.clientWidth - at;
};
byId("zoom-in").addEventListener("click", () => zoomTo(zoom * 2));
byId("zoom-out").addEventListener("click", () => zoomTo(zoom / 2));
byId("zoom-all").addEventListener("click", () => zoomTo(1));
curve.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;  // also what two fingers on a touchpad send
  event.preventDefault();
  zoomTo(zoom * 2 ** (-event.deltaY / 100), timeAt(event.clientX), event.clientX);
}, { passive: false });
new ResizeObserver(draw).observe(scroller);

curve.addEventListener("click", (event) => playAt(timeAt(event.clientX)));
curve.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "mouse") return;
  const t = timeAt(event.clientX), inside = clipAt(t) ? "" : ", not in the summary";
  const box = scroller.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
  const value = data.saliency[Math.floor(t * data.fps + 1e-6) - data.first];
  hover.hidden = false;
  hover.style.left = `${(100 * t) / data.duration}%`;
  hover.className = `hover${share < 0.25 ? " near-start" : share > 0.75 ? " near-end" : ""}`;
  hover.firstElementChild.textContent = `${clock(t)}${value === undefined ? "" : `, interest ${value.toFixed(2)}`}${inside}`;
});
curve.addEventListener("pointerleave", () => { hover.hidden = true; });
curve.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;  // the browser's own
  const t = sourceTime(), next = clips.find((clip) => clip.start > t + 0.05), last = clips.at(-1);
  const before = clips.findLast((clip) => clip.end < t - 0.05 || clip.start < t - 1);
  const to = { ArrowRight: next || last, ArrowUp: next || last, ArrowLeft: before || clips[0], ArrowDown: before || clips[0], Home: clips[0], End: last };
  if (to[event.key]) playAt(to[event.key].start);
  else if (event.key === "+" || event.key === "=") zoomTo(zoom * 2);
  else if (event.key === "-") zoomTo(zoom / 2);
  else if (event.key === "Enter") toggle();
  else return;
  event.preventDefault();
});
