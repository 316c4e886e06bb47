// A moment of the source video is played where the summary shows it; else the original is, at that very moment.
const video = byId("video"), original = byId("original");
let wanted = video;  // what the viewer asked for; moments outside the summary play the original in any case

const speedOf = (clip) => (clip.end - clip.start) / (clip.to - clip.from);
// The seam of two clips belongs to the later one, here and below.
const clipAt = (t) => clips.findLast((clip) => clip.start <= t + 0.0005 && t < clip.end);
const shown = () => (original.hidden ? video : original);

const playing = () => {
  const t = video.currentTime + 0.005;
  return clips.findLast((clip) => clip.from <= t) || clips[0];
};
const sourceTime = () => {
  if (shown() === original) return clamp(original.currentTime, 0, data.duration);
  const clip = playing();
  return clip ? clamp(clip.start + (video.currentTime - clip.from) * speedOf(clip), clip.start, clip.end) : 0;
};

const show = (which) => {
  const other = which === video ? original : video;
  other.pause();
  other.hidden = true;
  which.hidden = false;
  byId("show-summary").setAttribute("aria-pressed", String(which === video));
  byId("show-original").setAttribute("aria-pressed", String(which === original));
};
const start = (which) => {
  const started = which.play();
  if (started) started.catch(() => {});
};

// Seconds of the source; `run` false: go there and wait; `whole`: of what begins there the summary shows too little.
const playAt = (t, run = true, whole = false) => {
  const clip = clipAt(t);
  if (wanted === original || whole || !clip) {
    playOriginal(t, run);
    return;
  }
  show(video);
  tell("");
  // Just past the clip's first instant, so that its own first picture is shown.
  video.currentTime = Math.max(clip.from + (t - clip.start) / speedOf(clip), clip.from + 0.01);
  mark();
  if (run) start(video);
  intoSight();
};

// Where the player is not stuck to the window, it may be out of sight.
const intoSight = () => {
  const box = shown().getBoundingClientRect();
  if (box.bottom < 80 || box.top > innerHeight - 80)
    shown().scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-at]");
  if (button) {
    playAt(Number(button.dataset.at), true, button.classList.contains("outside"));
    return;
  }
  const row = event.target.closest("[data-play]");
  if (row && !event.target.closest("label, input, button") && getSelection().isCollapsed)
    playAt(Number(row.dataset.play), true, row.classList.contains("out"));
});

byId("show-summary").addEventListener("click", () => {
  const t = sourceTime(), run = !shown().paused;
  wanted = video;
  if (shown() === original && clipAt(t)) playAt(t, run);
  else show(video);
  tell("");
  mark();
});
byId("show-original").addEventListener("click", () => {
  wanted = original;
  playOriginal(sourceTime(), !video.paused);
});

byId("speed").addEventListener("change", () => {
  for (const each of [video, original]) each.defaultPlaybackRate = each.playbackRate = Number(byId("speed").value);
});

const subtitles = byId("subtitles");
if (subtitles) {
  const tracks = () => [video, original].flatMap((each) => [...each.textTracks]);
  subtitles.addEventListener("click", () => {
    const on = subtitles.getAttribute("aria-pressed") !== "true";
    for (const track of tracks()) track.mode = on ? "showing" : "hidden";
    subtitles.setAttribute("aria-pressed", String(on));
  });
  // The player's own menu turns them on and off, too.
  for (const each of [video, original])
    each.textTracks.addEventListener("change", () => {
      const track = shown().textTracks[0];
      if (track) subtitles.setAttribute("aria-pressed", String(track.mode === "showing"));
    });
}
