const toggle = () => { if (shown().paused) start(shown()); else shown().pause(); };
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return;
  const on = event.target, key = event.key.toLowerCase();
  if (on.closest("input:not([type=checkbox]), textarea, select")) return;
  if (key === " ") {  // the browser's own on whatever it presses or scrolls
    if (on !== curve && on !== document.body) return;
    toggle();
  } else if (key === "k") toggle();
  else if (key === "j") shown().currentTime = Math.max(shown().currentTime - 5, 0);
  else if (key === "l") shown().currentTime += 5;
  else return;
  event.preventDefault();
});

const first = linked();
if (first !== null) playAt(first, false);
addEventListener("hashchange", () => { const t = linked(); if (t !== null) playAt(t); });
mark();
