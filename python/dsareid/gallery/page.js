"use strict";
const byId = (id) => document.getElementById(id);
const question = byId("question"), results = byId("results"), key = byId("key"), picture = byId("picture");

// Ask the server, and put its answer into a place; what goes wrong is shown there too.
async function ask(path, place) {
  try {
    const answer = await fetch(path, { method: "POST", body: new FormData(question) });
    if (answer.ok) { place.innerHTML = await answer.text(); return true; }
    place.replaceChildren(problem(await answer.text()));
  } catch (error) {
    place.replaceChildren(problem("The server does not answer."));
  }
  return false;
}

function problem(text) {
  const line = document.createElement("p");
  line.className = "wrong";
  line.textContent = text;
  return line;
}

question.addEventListener("submit", (event) => { event.preventDefault(); ask("/search", results); });
picture.addEventListener("change", () => { key.value = ""; if (picture.files.length) ask("/search", results); });

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
  if (again) { key.value = again.dataset.key; await ask("/search", results); window.scrollTo(0, 0); }
  if (why) { byId("panel").textContent = "..."; byId("why").showModal(); ask("/panel/" + why.dataset.key, byId("panel")); }
});
byId("close").addEventListener("click", () => byId("why").close());

byId("export").addEventListener("click", async () => {
  const answer = await fetch("/export.csv", { method: "POST", body: new FormData(question) });
  if (!answer.ok) { results.replaceChildren(problem(await answer.text())); return; }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = "found.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});
