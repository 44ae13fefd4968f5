// Colour by, legend with filter, and search.
const small = new Intl.NumberFormat("en");

function sayShowing() {
  const sum = mode.order.reduce((total, g) => total + (mode.hidden[g] ? 0 : mode.sizes[g]), 0);
  at("showing").textContent = `${view.name} · ${small.format(sum)} of ${small.format(count)} shown`;
  at("dots").setAttribute("aria-label", `${meta.title} on a plane by ${view.name}, coloured by ${mode.name}; ${small.format(sum)} shown`);
}

function filtered() {
  at("groups").querySelectorAll("input").forEach((box) => { box.checked = !mode.hidden[box.value]; });
  if (selected >= 0 && !shown(selected)) select(-1);
  sayShowing();
  redraw();
}

function emphasise(group) {
  emphasised = group;
  redraw();
}

function legendRow(group) {
  const box = element("input", { type: "checkbox", value: group, checked: !mode.hidden[group] });
  box.onchange = () => { mode.hidden[group] = !box.checked; filtered(); };
  const name = mode.names[group];
  const label = element("label", {}, box, chip(mode.colours[group]), element("span", {}, name),
    element("span", { className: "count" }, small.format(mode.sizes[group])));
  const only = element("button", { type: "button", className: "only", "aria-label": `Show only ${name}` }, "only");
  only.onclick = () => { mode.hidden = mode.hidden.map((_, g) => g !== group); filtered(); };
  const row = element("li", {}, label, only);
  row.onpointerenter = (event) => { if (event.pointerType === "mouse") emphasise(group); };
  row.onpointerleave = () => emphasise(-1);
  box.onfocus = () => { if (box.matches(":focus-visible")) emphasise(group); };
  box.onblur = () => emphasise(-1);
  return row;
}

function drawLegend() {
  emphasised = -1;
  at("legend-title").textContent = `Coloured by ${mode.name}`;
  at("groups").replaceChildren(...mode.listed.map(legendRow));
  filtered();
}

function setAll(hidden) {
  mode.hidden = mode.hidden.map(() => hidden);
  filtered();
}

const MOST_FOUND = 20;
function search() {
  const text = at("search").value.trim().toLowerCase();
  const found = [];
  let matches = 0;
  for (let i = 0; text && i < count; i++) {
    if (!meta.ids[i].toLowerCase().includes(text)) continue;
    if (++matches <= MOST_FOUND) found.push(i);
  }
  at("matches").textContent = text ? `${small.format(matches)} of ${small.format(count)} ids` : "";
  at("found").classList.toggle("some", Boolean(text));
  at("results").replaceChildren(...found.map((i) => {
    const go = element("button", { type: "button" }, idOf(i));
    go.onclick = () => reveal(i);
    return element("li", {}, go);
  }));
  return found;
}

// Selects a patch even if the filter hides it.
function reveal(i) {
  if (!shown(i)) {
    mode.hidden[mode.of[i]] = false;
    filtered();
  }
  if (camera.scale < 6 * fitting()) camera.scale = 6 * fitting();
  [camera.x, camera.y] = view.xy.subarray(2 * i, 2 * i + 2);
  keepNear();
  select(i);
  at("found").classList.remove("some");
}
