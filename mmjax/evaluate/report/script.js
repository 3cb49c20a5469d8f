"use strict";
// What is shown under the pointer, sounds that play where they stand, and all of the page on paper.
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "tooltip");
document.body.append(tip);

function show(event, text, picture) {
  tip.replaceChildren();
  if (picture) {
    const copy = picture.cloneNode();
    copy.loading = "eager";
    tip.append(copy);
  }
  tip.append(text);
  tip.hidden = false;
  const x = event.clientX + 14, y = event.clientY + 14;
  tip.style.left = Math.max(4, Math.min(x, innerWidth - tip.offsetWidth - 6)) + "px";
  tip.style.top = Math.max(4, y + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : y) + "px";
}

for (const svg of document.querySelectorAll("svg")) // their <title> is for those without a script
  for (const title of svg.querySelectorAll("[data-tip] > title")) title.remove();

document.addEventListener("pointermove", (event) => {
  const at = event.target.closest ? event.target.closest("[data-tip]") : null;
  if (at) {
    const row = at.dataset.row && document.getElementById(at.dataset.row);
    show(event, at.dataset.tip, row && row.querySelector("img"));
    return;
  }
  const chart = event.target.closest ? event.target.closest("svg[data-lines]") : null;
  for (const other of document.querySelectorAll("svg[data-lines] .cursor"))
    if (!chart || other.parentNode !== chart) other.style.visibility = "hidden";
  if (!chart) {
    tip.hidden = true;
    return;
  }
  const lines = JSON.parse(chart.dataset.lines);
  const box = chart.getBoundingClientRect();
  const x = (event.clientX - box.left) * chart.viewBox.baseVal.width / box.width;
  let nearest = null;
  for (const line of lines)
    for (const point of line.points)
      if (!nearest || Math.abs(point[2] - x) < Math.abs(nearest[2] - x)) nearest = point;
  const said = ["step " + nearest[0].toLocaleString("en")];
  for (const line of lines) {
    const point = line.points.find((each) => each[0] === nearest[0]);
    if (point) said.push(line.name + "  " + Number(point[1].toPrecision(4)));
  }
  const cursor = chart.querySelector(".cursor");
  cursor.setAttribute("x1", nearest[2]);
  cursor.setAttribute("x2", nearest[2]);
  cursor.style.visibility = "visible";
  show(event, said.join("\n"));
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

let playing = null;
document.addEventListener("click", (event) => {
  const link = event.target.closest ? event.target.closest("a.play") : null;
  if (!link) return;
  event.preventDefault();
  const sound = document.getElementById(link.getAttribute("href").slice(1));
  const again = playing && playing.link === link && !playing.sound.paused;
  if (playing) {
    playing.sound.pause();
    playing.link.classList.remove("playing");
  }
  if (again) return;
  playing = { link, sound };
  if (sound.tagName === "VIDEO") sound.scrollIntoView({ block: "center", behavior: "smooth" });
  sound.currentTime = 0;
  sound.play();
  link.classList.add("playing");
  sound.onended = () => link.classList.remove("playing");
});

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open]):not(.folded)")]; // no paper plays sounds
  for (const each of closed) each.open = true;
});
addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
