const copy = async (text, button) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no clipboard for this page: the old way
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = button.dataset.label || button.textContent;
  button.dataset.label = label;
  button.textContent = "Copied";
  tell("Copied.");
  setTimeout(() => {
    button.textContent = label;
    if (told.textContent === "Copied.") tell("");
  }, 1500);
};

byId("copy").addEventListener("click", (event) => copy(data.text, event.currentTarget));
byId("link").addEventListener("click", (event) =>
  copy(`${location.href.split("#")[0]}#t=${sourceTime().toFixed(1)}`, event.currentTarget));

for (const button of all(".save"))
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = button.closest("li").querySelector("img").src;
    link.download = button.dataset.name;
    link.click();
  });
