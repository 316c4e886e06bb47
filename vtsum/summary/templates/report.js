"use strict";
// A moment of the source video is played where the summary shows it, or at the nearest chosen shot.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const video = document.getElementById("video");
  const curve = document.getElementById("curve");
  const playhead = document.getElementById("playhead");
  const hover = document.getElementById("hover");
  const clips = data.clips.map(([shot, start, end, from, to]) => ({ shot, start, end, from, to }));
  if (!clips.length) return;

  const clock = (seconds) => {
    const s = Math.floor(seconds + 1e-6), two = (n) => String(n).padStart(2, "0");
    const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
  };
  const distance = (clip, t) => Math.max(clip.start - t, t - clip.end, 0);
  // The seam of two clips belongs to the later one, here and below.
  const nearest = (t) => clips.reduce((a, b) => (distance(b, t) <= distance(a, t) ? b : a));
  const speed = (clip) => (clip.end - clip.start) / (clip.to - clip.from);
  const playing = () => {
    const t = video.currentTime + 0.005;
    let found = clips[0];
    for (const clip of clips) if (clip.from <= t) found = clip;
    return found;
  };
  const sourceTime = (clip) =>
    Math.min(Math.max(clip.start + (video.currentTime - clip.from) * speed(clip), clip.start), clip.end);

  const mark = () => {
    const clip = playing(), t = sourceTime(clip);
    playhead.style.left = `${(100 * t) / data.duration}%`;
    curve.setAttribute("aria-valuenow", t.toFixed(1));
    curve.setAttribute("aria-valuetext", clock(t));
    for (const frame of document.querySelectorAll(".frame"))
      frame.classList.toggle("on", Number(frame.dataset.shot) === clip.shot);
    for (const line of document.querySelectorAll(".words li"))
      line.classList.toggle("on", line.dataset.shots.split(" ").includes(String(clip.shot)));
  };

  const playAt = (t) => {
    const clip = nearest(t);
    const inside = Math.min(Math.max(t, clip.start), clip.end);
    const at = clip.from + (inside - clip.start) / speed(clip);
    // Just past the clip's first instant, so that its own first picture is shown.
    video.currentTime = Math.min(Math.max(at, clip.from + 0.01), Math.max(clip.to - 0.05, clip.from + 0.01));
    mark();
    const started = video.play();
    if (started) started.catch(() => {});
  };

  const timeAt = (event) => {
    const box = curve.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * data.duration;
  };
  curve.addEventListener("click", (event) => playAt(timeAt(event)));
  curve.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return;
    const t = timeAt(event), share = t / data.duration;
    let i = data.times.findIndex((time) => time > t);
    i = Math.max((i < 0 ? data.times.length : i) - 1, 0);
    hover.hidden = false;
    hover.style.left = `${100 * share}%`;
    hover.className = `hover${share < 0.1 ? " near-start" : share > 0.9 ? " near-end" : ""}`;
    hover.firstElementChild.textContent = `${clock(t)}  saliency ${data.saliency[i].toFixed(2)}`;
  });
  curve.addEventListener("pointerleave", () => { hover.hidden = true; });
  curve.addEventListener("keydown", (event) => {
    const at = clips.indexOf(playing());
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: clips.length - 1 };
    if (event.key in to) {
      playAt(clips[Math.min(Math.max(to[event.key], 0), clips.length - 1)].start);
    } else if (event.key === " " || event.key === "Enter") {
      if (video.paused) video.play().catch(() => {}); else video.pause();
    } else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-at]");
    if (!button) return;
    playAt(Number(button.dataset.at));
    // On a phone the player may be out of sight.
    const box = video.getBoundingClientRect();
    if (box.bottom < 80 || box.top > innerHeight - 80)
      video.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  });

  const find = document.getElementById("find");
  if (find) find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let count = 0;
    for (const line of document.querySelectorAll("#said li")) {
      line.hidden = !line.lastElementChild.textContent.toLowerCase().includes(wanted);
      count += line.hidden ? 0 : 1;
    }
    document.getElementById("found").textContent = wanted ? `${count} found` : "";
  });

  const follow = () => { mark(); if (!video.paused && !video.ended) requestAnimationFrame(follow); };
  video.addEventListener("play", follow);
  for (const name of ["seeked", "timeupdate", "loadedmetadata"]) video.addEventListener(name, mark);
  mark();
})();
