// Sends a photo to the server of this page and shows what it answers. All text from the server is
// set as text, never as HTML.
"use strict";

const part = (id) => document.getElementById(id);
const maxBytes = Number(document.body.dataset.maxBytes);
let newest = 0; // photos may be dropped faster than they are answered
let shownUrl = "";

function showPhoto(file) {
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = URL.createObjectURL(file);
  part("photo").src = shownUrl;
  part("photo").hidden = false;
  part("invitation").hidden = true;
  part("drop").classList.add("full");
}

function hidePhoto() {
  part("photo").hidden = true;
  part("invitation").hidden = false;
  part("drop").classList.remove("full");
}

function show({ predictions = [], milliseconds = null, error = "" }) {
  part("error").textContent = error;
  part("error").hidden = !error;
  part("hint").hidden = true;
  part("classes").replaceChildren(...predictions.map(row));
  part("time").textContent = milliseconds === null ? "" : `answered in ${written(milliseconds)} ms`;
  part("results").setAttribute("aria-busy", "false");
}

function row({ name, label, probability }) {
  const item = element("li");
  const answer = element("div", "answer");
  answer.append(element("b", "", name), element("span", "", percent(probability)));
  item.append(answer);
  if (label !== name) item.append(element("code", "", label));
  const bar = element("div", "bar");
  const filled = element("i");
  filled.style.width = `${100 * probability}%`;
  bar.append(filled);
  item.append(bar);
  return item;
}

function element(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

function written(milliseconds) {
  return milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0);
}

async function classify(file) {
  const number = ++newest;
  showPhoto(file);
  if (file.size > maxBytes) {
    show({ error: `The photo has ${(file.size / 1e6).toFixed(1)} MB: take one of at most ${maxBytes / 1e6} MB.` });
    return;
  }
  part("results").setAttribute("aria-busy", "true");
  let told;
  try {
    const answer = await fetch("/predict", { method: "POST", body: file });
    told = await answer.json();
  } catch {
    told = { error: "The server does not answer: it may have ended." };
  }
  if (number === newest) show(told);
}

function take(files) {
  if (files && files.length) classify(files[0]);
}

part("file").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // the same file may be chosen again
});
part("photo").addEventListener("error", hidePhoto); // a format that this browser does not show
document.addEventListener("paste", (event) => take(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  part("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) part("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  part("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
