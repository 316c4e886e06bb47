const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const clips = data.clips.map(([shot, start, end, from, to]) => ({ shot, start, end, from, to }));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const clock = (seconds) => {
  const s = Math.floor(seconds + 1e-6), two = (n) => String(n).padStart(2, "0");
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
};

const told = byId("told");
const tell = (text) => { told.textContent = text; };
