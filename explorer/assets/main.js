at("title").textContent = meta.title;
at("view").append(...views.map((one, k) => element("option", { value: k }, one.name)));
at("mode").append(...modes.map((one, k) => element("option", { value: k }, one.name)));
at("about").querySelector("ul").append(...meta.about.map((line) => element("li", {}, line)));
at("view-field").hidden = views.length < 2;
at("search-field").hidden = !meta.ids;
if (!meta.sheets) at("legend").append(element("p", { id: "without", className: "quiet" }, meta.about.at(-1)));

at("view").onchange = (event) => { view = views[event.target.value]; sayShowing(); redraw(); };
at("mode").onchange = (event) => { mode = sorted(modes[event.target.value]); drawLegend(); };
at("all").onclick = () => setAll(false);
at("none").onclick = () => setAll(true);
at("in").onclick = () => zoomAt(...middle(), 1.6);
at("out").onclick = () => zoomAt(...middle(), 1 / 1.6);
at("whole").onclick = showAll;
at("search").oninput = search;
at("search").onkeydown = (event) => {
  const [first] = event.key === "Enter" ? search() : [];
  if (first !== undefined) reveal(first);
};

const dark = window.matchMedia("(prefers-color-scheme: dark)");
at("theme").onclick = () => {
  const root = document.documentElement;
  const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  redraw();
};
dark.onchange = redraw;
onSheet = redraw;
new ResizeObserver(resize).observe(at("plot"));
drawLegend();
resize();
// For the tests and for the curious.
window.explorer = { camera, timing, nearest, select, zoomAt, moveBy, showAll, drawAll, toX, toY, selected: () => selected };
