// Ways to colour the patches: every one sorts them into groups with a name and a colour.
const GREY = "#8b939b";
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
  "November", "December"];
const NO_LABEL = meta.classes.length;

const frequency = meta.classes.map((_, label) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += has(i, label);
  return sum;
});

// Of a patch's labels the one that `before` puts first.
const oneLabel = (before) => (i) => {
  let best = NO_LABEL;
  for (let label = 0; label < NO_LABEL; label++) {
    if (has(i, label) && (best === NO_LABEL || before(frequency[label], frequency[best]))) best = label;
  }
  return best;
};

const classNames = [...meta.classes, "no label"];
const classColours = [...meta.colours, GREY];
const wheel = (turn) => `hsl(${Math.round(360 * turn)} 65% ${turn % 0.25 < 0.125 ? 48 : 60}%)`;

const modes = [];
const offer = (name, names, colours, groupOf, inOrder = false) => modes.push({ name, names, colours, groupOf, inOrder });
if (meta.multilabel) {
  offer("most frequent label", classNames, classColours, oneLabel((a, b) => a > b));
  offer("rarest label", classNames, classColours, oneLabel((a, b) => a < b));
} else {
  offer("class", classNames, classColours, oneLabel(() => false));
}
if (meta.splitNames.length > 1) {
  offer("split", meta.splitNames, meta.splitNames.map((_, k, all) => wheel(k / all.length)),
    (i) => splits[i], true);
}
if (minutes.some((value) => value >= 0)) {
  offer("month", [...MONTHS, "no date"], [...MONTHS.map((_, k) => wheel(k / 12)), GREY],
    (i) => (minutes[i] < 0 ? 12 : new Date(minutes[i] * 60000).getUTCMonth()), true);
}
if (meta.multilabel) {
  meta.classes.forEach((name, label) => {
    if (frequency[label]) offer(`has: ${name}`, [name, "without it"], [meta.colours[label], GREY], (i) => (has(i, label) ? 0 : 1));
  });
}

// The group of every patch, and the patches of every group one after the other, large groups first.
function sorted(mode) {
  if (mode.of) return mode;
  mode.of = Uint8Array.from({ length: count }, (_, i) => mode.groupOf(i));
  mode.sizes = mode.names.map(() => 0);
  for (const group of mode.of) mode.sizes[group]++;
  mode.order = mode.names.map((_, g) => g).filter((g) => mode.sizes[g]).sort((a, b) => mode.sizes[b] - mode.sizes[a]);
  mode.listed = mode.inOrder ? [...mode.order].sort((a, b) => a - b) : mode.order;
  mode.members = mode.names.map((_, g) => new Uint32Array(mode.sizes[g]));
  const next = mode.names.map(() => 0);
  for (let i = 0; i < count; i++) mode.members[mode.of[i]][next[mode.of[i]]++] = i;
  mode.hidden = mode.names.map(() => false);
  return mode;
}

let mode = sorted(modes[0]);
const shown = (i) => !mode.hidden[mode.of[i]];
const colourOf = (i) => mode.colours[mode.of[i]];
