"use strict";
const byId = (id) => document.getElementById(id);
const question = byId("question"), results = byId("results"), key = byId("key"), picture = byId("picture");

// The question whose answer is shown: the list that is saved, and what "why" is about, are of it.
let shown = new FormData(question), latest = 0;

// Ask the server, and put its answer into a place; what goes wrong is shown there too. An answer that comes
// after a later question's is dropped.
async function ask(path, place, asked) {
  const mine = ++latest;
  let text, good = false;
  try {
    const answer = await fetch(path, { method: "POST", body: asked });
    good = answer.ok;
    text = await answer.text();
  } catch (error) {
    text = "The server does not answer.";
  }
  if (mine !== latest) return;
  if (good) place.innerHTML = text; else place.replaceChildren(problem(text));
  if (good && place === results) shown = asked;
}

const search = () => ask("/search", results, new FormData(question));

function problem(text) {
  const line = document.createElement("p");
  line.className = "wrong";
  line.textContent = text;
  return line;
}

question.addEventListener("submit", (event) => { event.preventDefault(); search(); });
picture.addEventListener("change", () => { key.value = ""; if (picture.files.length) search(); });

// A picture may be dropped anywhere.
document.addEventListener("dragover", (event) => { event.preventDefault(); byId("drop").className = "over"; });
document.addEventListener("dragleave", () => { byId("drop").className = ""; });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").className = "";
  if (event.dataTransfer.files.length) {
    picture.files = event.dataTransfer.files;
    picture.dispatchEvent(new Event("change"));
  }
});

results.addEventListener("click", async (event) => {
  const again = event.target.closest(".again"), why = event.target.closest(".why");
  if (again) { key.value = again.dataset.key; await search(); window.scrollTo(0, 0); }
  if (why) { byId("panel").textContent = "..."; byId("why").showModal(); ask("/panel/" + why.dataset.key, byId("panel"), shown); }
});
byId("close").addEventListener("click", () => byId("why").close());

byId("export").addEventListener("click", async () => {
  const answer = await fetch("/export.csv", { method: "POST", body: shown });
  if (!answer.ok) { results.replaceChildren(problem(await answer.text())); return; }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = "found.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
