// Two canvases that show the same ground: drawing, pointing, and the keyboard.
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** A canvas that shows a picture of a part of a scene over hatching, which stands for what is not seen. */
export class MapView {
  constructor(canvas) {
    Object.assign(this, { canvas, picture: null, box: null, seen: null, mark: null, extent: [1, 1] });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /**
   * @param box {left, top, width, height} of the picture in pixels of the scene.
   * @param seen a picture of the scene that is transparent where the ground is not seen: cells may hold some of that.
   * @param extent of the scene.
   */
  show(picture, box, seen, extent) {
    Object.assign(this, { picture, box, seen, extent });
    this.canvas.style.aspectRatio = `${extent[0]} / ${extent[1]}`;
    this.draw();
  }

  draw() {
    const { canvas, picture, box, seen, extent } = this;
    if (!picture || !canvas.clientWidth) return;
    const scale = (canvas.clientWidth * devicePixelRatio) / extent[0];
    [canvas.width, canvas.height] = extent.map((side) => Math.max(1, Math.round(side * scale)));
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(picture, box.left * scale, box.top * scale, box.width * scale, box.height * scale);
    pen.globalCompositeOperation = "destination-in";
    pen.drawImage(seen, 0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "destination-over";
    pen.fillStyle = hatching(pen);
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "source-over";
    if (this.mark) this.frame(pen, scale);
  }

  frame(pen, scale) {
    const { left, top, side } = this.mark;
    for (const [width, colour] of [[5, "#000"], [2.5, "#fff"]]) {
      pen.lineWidth = width * devicePixelRatio;
      pen.strokeStyle = colour;
      pen.strokeRect(left * scale, top * scale, side * scale, side * scale);
    }
  }

  /** Pixel of the scene, [column, row], under a pointer. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.extent[0], ((event.clientY - box.top) / box.height) * this.extent[1]];
  }
}

function hatching(pen) {
  const side = 8 * devicePixelRatio;
  const tile = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const ink = tile.getContext("2d");
  ink.fillStyle = "#c9c9c9";
  ink.fillRect(0, 0, side, side);
  ink.strokeStyle = "#8f8f8f";
  ink.lineWidth = 1.5 * devicePixelRatio;
  for (const shift of [-side, 0, side]) {
    ink.beginPath();
    ink.moveTo(shift - 1, side + 1);
    ink.lineTo(shift + side + 1, -1);
    ink.stroke();
  }
  return pen.createPattern(tile, "repeat");
}

/** Call `choose(row, column)` of a cell that is clicked on any of the views, or reached by the arrow keys. */
export function listen(views, keyboard, current, choose) {
  for (const view of views) {
    view.canvas.addEventListener("click", (event) => {
      const { result } = current();
      if (!result) return;
      const [x, y] = view.at(event);
      choose(Math.floor((y - result.origin.top) / result.cell), Math.floor((x - result.origin.left) / result.cell));
    });
  }
  keyboard.addEventListener("keydown", (event) => {
    const { result, selected } = current();
    const move = MOVES[event.key];
    if (!result || !move) return;
    event.preventDefault();
    const [row, column] = selected ?? [result.rows >> 1, result.columns >> 1];
    choose(row + (selected ? move[0] : 0), column + (selected ? move[1] : 0));
  });
}
