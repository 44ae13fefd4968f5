// The card at the pointer and the panel of the selected patch.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function chip(colour) {
  const dot = element("span", { className: "chip" });
  dot.style.background = colour;
  return dot;
}

// A canvas with a patch's picture; null where the page has none.
function pictureOf(i, side) {
  if (!meta.sheets) return null;
  const canvas = element("canvas", { className: "picture", width: meta.tileSide, height: meta.tileSide, role: "img" });
  canvas.setAttribute("aria-label", `True-colour picture of ${idOf(i)}`);
  canvas.style.width = canvas.style.height = `${side}px`;
  const show = () => drawPicture(canvas.getContext("2d"), i, 0, 0, meta.tileSide);
  if (!show()) sheets.get(Math.floor(i / meta.tilesARow ** 2)).addEventListener("load", show);
  return canvas;
}

function facts(i) {
  const list = element("ul", { className: "facts" });
  const labels = labelsOf(i);
  for (const label of labels) list.append(element("li", {}, chip(meta.colours[label]), meta.classes[label]));
  if (!labels.length) list.append(element("li", {}, chip(GREY), "no label"));
  for (const text of [dateOf(i), placeOf(i), meta.splitNames.length > 1 ? `split ${meta.splitNames[splits[i]]}` : null]) {
    if (text) list.append(element("li", { className: "quiet" }, text));
  }
  return list;
}

// Picture and facts side by side.
function card(i, side) {
  return element("div", { className: "card" }, ...[pictureOf(i, side), facts(i)].filter(Boolean));
}

// On a phone the panel lies over the plot: a patch below it is moved up.
function moveFromUnder(panel, i) {
  if (getComputedStyle(panel).position !== "fixed") return;
  const room = panel.getBoundingClientRect().top - at("plot").getBoundingClientRect().top - 40;
  if (toY(i) > room) moveBy(0, Math.max(room, 40) - toY(i));
}

function showTip(i, x, y) {
  const tip = at("tip");
  if (hovered !== i) {
    hovered = i;
    drawMarks();
    tip.hidden = i < 0;
    if (i >= 0) tip.replaceChildren(card(i, 100), element("h2", {}, idOf(i)));
  }
  if (i < 0) return;
  const [w, h] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${x + 18 + w > camera.width ? Math.max(x - 18 - w, 0) : x + 18}px`;
  tip.style.top = `${Math.max(Math.min(y - h / 3, camera.height - h - 4), 4)}px`;
}

// "2 of 3" labels of patch i that patch j has too; for one label a patch, whether it is the same.
function agreement(i, j) {
  const mine = labelsOf(i);
  const common = mine.filter((label) => has(j, label)).length;
  if (!meta.multilabel) return common ? "same" : meta.classes[labelsOf(j)[0]];
  return `${common} of ${mine.length}`;
}

function neighbourTable(i) {
  const head = element("tr", {});
  if (meta.sheets) head.append(element("th", { scope: "col" }, "Picture"));
  head.append(element("th", { scope: "col" }, "Patch"), element("th", { scope: "col" }, meta.multilabel ? "Labels in common" : "Class"));
  const body = element("tbody", {});
  for (const j of neighboursOf(i)) {
    const row = element("tr", {});
    if (meta.sheets) row.append(element("td", {}, pictureOf(j, 36)));
    const go = element("button", { type: "button" }, idOf(j));
    go.onclick = () => select(j, true);
    row.append(element("td", {}, go), element("td", {}, agreement(i, j)));
    row.onpointerenter = () => { hovered = j; drawMarks(); };
    row.onpointerleave = () => { hovered = -1; drawMarks(); };
    body.append(row);
  }
  return element("table", {}, element("caption", {}, "Nearest by embedding"), element("thead", {}, head), body);
}

// Selects a patch, or none with -1; `moves` brings it into sight.
function select(i, moves = false) {
  selected = i;
  const panel = at("details");
  panel.hidden = i < 0;
  if (i < 0) {
    panel.replaceChildren();
    at("said").textContent = "";
    return redraw();
  }
  const close = element("button", { type: "button", className: "close", "aria-label": "Close" }, "×");
  close.onclick = () => { select(-1); at("dots").focus(); };
  panel.replaceChildren(close, element("h2", {}, idOf(i)), card(i, 140), neighbourTable(i));
  panel.scrollTop = 0;
  at("said").textContent = `Selected ${idOf(i)}: ${labelsOf(i).map((label) => meta.classes[label]).join(", ") || "no label"}`;
  if (moves) bringInto(i);
  moveFromUnder(panel, i);
  return redraw();
}
