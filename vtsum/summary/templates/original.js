// The original video: looked for beside the page and above its folder when it is wanted first, or chosen by the viewer.
const places = /^(file|https?):$/.test(location.protocol) ? ["", "../"] : [];
let state = "unknown";  // "looking", "ready", "missing"
let pending = null;  // what is to be played once it is there
let chosenFile = null;

const ask = (why) => {
  state = "missing";
  original.removeAttribute("src");
  if (wanted === original) wanted = video;
  show(video);
  byId("pick").hidden = false;
  const moment = pending && !clipAt(pending.t) ? `${clock(pending.t)} is not in the summary. ` : "";
  tell(`${moment}${why} Choose ${data.name} to play it here.`);
};

const look = (place) => {
  state = "looking";
  if (place >= places.length) {
    ask("The original does not lie beside this page.");
    return;
  }
  const done = new AbortController(), once = { signal: done.signal };
  original.addEventListener("loadedmetadata", () => {
    done.abort();
    const long = original.duration;
    if (Number.isFinite(long) && Math.abs(long - data.duration) > Math.max(2, 0.01 * data.duration)) look(place + 1);
    else ready();
  }, once);
  original.addEventListener("error", () => { done.abort(); look(place + 1); }, once);
  original.src = places[place] + encodeURIComponent(data.name);
};

const ready = () => {
  state = "ready";
  byId("pick").hidden = true;
  speak();
  const { t, run } = pending;
  playOriginal(t, run);
};

const playOriginal = (t, run) => {
  pending = { t, run };
  if (state === "unknown") look(0);
  else if (state === "missing") ask("The original is not loaded.");
  if (state !== "ready") return;
  show(original);
  tell(clipAt(t) ? "This is the original." : `${clock(t)} is not in the summary: this is the original.`);
  original.currentTime = t;
  mark();
  if (run) start(original);
  intoSight();
};

byId("file").addEventListener("change", () => {
  const [file] = byId("file").files;
  if (!file) return;
  if (file.size !== data.size) {
    ask(`${file.name} is another file, of ${(file.size / 1e6).toFixed(1)} MB instead of ${(data.size / 1e6).toFixed(1)}.`);
    return;
  }
  if (chosenFile) URL.revokeObjectURL(chosenFile);
  chosenFile = URL.createObjectURL(file);
  state = "looking";
  const done = new AbortController(), once = { signal: done.signal };
  original.addEventListener("loadedmetadata", () => { done.abort(); ready(); }, once);
  original.addEventListener("error", () => { done.abort(); ask(`This browser cannot play ${file.name}.`); }, once);
  original.src = chosenFile;
});

// What is said, as subtitles of the original.
const speak = () => {
  if (!subtitles || original.textTracks.length) return;
  const track = original.addTextTrack("subtitles", "Subtitles");
  for (const line of all("#said li")) {
    const [from, to] = line.dataset.spans.split("-").map(Number);
    const text = line.querySelector(".line").textContent;
    if (to > from) track.addCue(new VTTCue(from, to, text.replace(/&/g, "&amp;").replace(/</g, "&lt;")));
  }
  track.mode = subtitles.getAttribute("aria-pressed") === "true" ? "showing" : "hidden";
};
