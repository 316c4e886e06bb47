"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const copy = (id) => find(id).content.firstElementChild.cloneNode(true);
  const tell = (text) => { find("told").textContent = text; };
  const clock = (seconds) => {
    const whole = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  };
  const address = (...parts) => parts.map(encodeURIComponent).join("/").replaceAll("%2F", "/");
  const KINDS = { "summary.mp4": "Video", "summary.txt": "Text", "summary.json": "Data", "summary.vtt": "Subtitles" };
  const SILENT = "The server does not answer; start vtsum serve again.";
  const sending = new Map();  // names of videos on their way, and how much of each is here
  let summaries = [], shown = "", changed = null;

  async function ask(method, path, body) {
    const answer = await fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.status === 204 ? null : answer.json();
  }

  // fetch cannot tell how much of a body has been sent
  function send(file) {
    return new Promise((done, failed) => {
      const request = new XMLHttpRequest();
      request.open("PUT", `api/videos?name=${encodeURIComponent(file.name)}`);
      request.responseType = "text";
      request.upload.onprogress = (event) => { sending.set(file, event.loaded / file.size); showJobs(); };
      request.onload = () => request.status === 200 ? done(JSON.parse(request.response).video) : failed(new Error(request.response));
      request.onerror = () => failed(new Error("the connection was lost"));
      request.send(file);
    });
  }

  async function take(files) {
    const asked = { budget: find("budget").value, speech: find("speech").checked, ocr: find("ocr").checked };
    try {
      await ask("POST", "api/check", asked);
    } catch (error) {
      tell(error.message);
      return;
    }
    for (const file of files) sending.set(file, 0);
    showJobs();
    for (const file of files) {
      try {
        await ask("POST", "api/summaries", { ...asked, video: await send(file) });
        tell(`${file.name} is here.`);
      } catch (error) {
        tell(`${file.name}: ${error.message}`);
      }
      sending.delete(file);
      await look();
    }
  }

  let jobs = [];
  function showJobs() {
    const list = [...sending].map(([file, share]) => ({ name: file.name, state: "running", stage: "Being taken here", share }));
    list.push(...jobs.filter((job) => job.state !== "done"));
    find("work").hidden = !list.length;
    const at = document.activeElement.matches("#jobs .stop") ? document.activeElement.getAttribute("aria-label") : "";
    find("jobs").replaceChildren(...list.map((job) => {
      const item = copy("job"), active = job.state === "running" || job.state === "waiting";
      item.classList.add(job.state);
      item.querySelector(".name").textContent = job.name;
      const bar = item.querySelector("progress"), stop = item.querySelector(".stop");
      bar.setAttribute("aria-label", job.name);
      bar.hidden = !active;
      if (job.state === "running") bar.value = job.share; else bar.value = 0;
      stop.hidden = !active || job.number === undefined;
      stop.setAttribute("aria-label", `Stop ${job.name}`);
      stop.onclick = () => ask("DELETE", `api/jobs/${job.number}`).then(look, (error) => tell(error.message));
      const left = job.left ? `, ${clock(job.left)} left of it` : "";
      item.querySelector(".state").textContent = {
        waiting: "Waits for its turn", running: (job.stage || "Begins") + left, stopped: "Stopped", failed: `Failed: ${job.error}`,
      }[job.state];
      return item;
    }));
    for (const stop of at ? find("jobs").querySelectorAll(".stop") : []) {
      if (stop.getAttribute("aria-label") === at) stop.focus();  // it was under the user's hand
    }
  }

  function showSummaries() {
    const now = JSON.stringify(summaries.map((made) => [made.name, made.made, made.files, made.recut]));
    if (now === shown) return;  // a video that plays is left alone
    shown = now;
    find("nothing").hidden = summaries.length > 0;
    find("summaries").replaceChildren(...summaries.map((made) => {
      const item = copy("summary"), place = (name) => address("summaries", made.name, name);
      const video = item.querySelector("video"), page = item.querySelector(".page"), change = item.querySelector(".change");
      item.querySelector("h3").textContent = made.title;
      item.querySelector(".lengths").textContent = `${clock(made.lasts)} of ${clock(made.seconds)} · ${made.shown}`;
      item.querySelector(".text").textContent = made.text.join(" ");
      video.hidden = !made.files.includes("summary.mp4");
      video.setAttribute("aria-label", `Summary of ${made.title}`);
      if (!video.hidden) video.src = place("summary.mp4");
      const picture = made.shots.find((shot) => shot.picture);
      if (picture) video.poster = place(picture.picture);
      if (made.files.includes("summary.vtt")) {
        const track = document.createElement("track");
        Object.assign(track, { kind: "subtitles", src: place("summary.vtt"), label: "What is said" });
        video.append(track);
      }
      page.hidden = !made.files.includes("report.html");
      page.href = place("report.html");
      change.hidden = !made.recut;
      change.onclick = () => openChange(made);
      for (const name of made.files) {
        if (name === "report.html") continue;
        const link = document.createElement("a");
        Object.assign(link, { className: "button", href: `${place(name)}?download`, download: "", textContent: KINDS[name] || name });
        link.setAttribute("aria-label", `Download ${name}`);
        item.querySelector(".files").append(link);
      }
      return item;
    }));
  }

  function openChange(made) {
    changed = made;
    find("change-title").textContent = made.title;
    find("new-budget").value = made.budget;
    const original = find("original");
    original.src = address("videos", made.video);
    find("shots").replaceChildren(...made.shots.map((shot) => {
      const item = copy("shot"), time = item.querySelector(".time"), span = `${clock(shot.start)} to ${clock(shot.end)}`;
      time.textContent = span;
      time.setAttribute("aria-label", `Show ${span}`);
      time.onclick = () => { original.currentTime = shot.start; original.play().catch(() => {}); };
      item.querySelector(".in").textContent = shot.chosen ? "in the summary" : "";
      item.querySelector("select").setAttribute("aria-label", span);
      return item;
    }));
    find("change").showModal();
  }

  find("close").onclick = () => find("change").close();
  find("change").onclose = () => { find("original").removeAttribute("src"); find("original").load(); };
  find("again").onclick = async () => {
    const rows = [...find("shots").querySelectorAll("select")];
    const spans = (wish) => changed.shots.filter((_, i) => rows[i].value === wish).map((shot) => [shot.start, shot.end]);
    try {
      await ask("POST", "api/recut", { summary: changed.name, budget: find("new-budget").value, keep: spans("keep"), drop: spans("drop") });
      find("change").close();
      tell("It is cut again.");
      await look();
    } catch (error) {
      find("change").close();
      tell(error.message);
    }
  };

  const drop = find("drop");
  addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over-it"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over-it"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over-it");
    take([...event.dataTransfer.files]);
  });
  find("files").onchange = (event) => { const files = [...event.target.files]; event.target.value = ""; take(files); };

  async function look() {
    ({ jobs, summaries } = await ask("GET", "api/state"));
    showJobs();
    showSummaries();
  }
  async function watch() {
    try {
      await look();
      if (find("told").textContent === SILENT) tell("");
    } catch { tell(SILENT); }
    setTimeout(watch, jobs.some((job) => job.state === "running" || job.state === "waiting") ? 500 : 3000);
  }
  watch();
})();
