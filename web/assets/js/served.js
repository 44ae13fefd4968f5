// Opened from the disk, a browser lets a page read neither modules nor weights: say what to do instead.
if (location.protocol === "file:") {
  const problem = document.getElementById("problem");
  problem.textContent = "This page has to be served: run “python -m http.server” in its folder and open http://localhost:8000";
  problem.hidden = false;
}
