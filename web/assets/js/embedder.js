// The worker, from the page's side.

/** A worker that is started from the page's own text takes over the page's policy: it can reach this server alone. */
export function startWorker() {
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  return new Worker(address, { type: "module" });
}

let worker = null;

/** Embed; `progress` is called with (done, total). Resolves to what the worker found, or null where it was stopped. */
export function embed(request, progress) {
  worker ??= startWorker();
  const mine = worker;
  return new Promise((resolve, reject) => {
    mine.stop = () => resolve(null);
    mine.onerror = (event) => reject(new Error(event.message || "The runtime cannot be loaded; export the folder again."));
    mine.onmessage = ({ data }) => {
      if (data.kind === "progress") progress(data.done, data.total);
      else if (data.kind === "done") resolve(data);
      else reject(new Error(data.message));
    };
    mine.postMessage(request);
  });
}

export function stop() {
  worker?.terminate();
  worker?.stop?.();
  worker = null;
}
