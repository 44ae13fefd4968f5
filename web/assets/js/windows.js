// Where the windows of a scene lie, and how their vectors become cells: the same rules as scenes/windows.py.
const SPACING = 30;

/** A scene cut into blocks of the size of a window, on a grid that starts at the origin of the map projection. */
export class Frame {
  /** @param grid {width, height, x, y}; @param sizes {window, patch, stride, cell}, pixels. */
  constructor(grid, sizes) {
    Object.assign(this, sizes, { grid });
    const known = grid.x !== null;
    this.above = known ? modulo(Math.floor(-grid.y / SPACING + 1e-6), this.window) : 0;
    this.left = known ? modulo(Math.floor(grid.x / SPACING + 1e-6), this.window) : 0;
    this.blocksDown = Math.ceil((this.above + grid.height) / this.window);
    this.blocksAcross = Math.ceil((this.left + grid.width) / this.window);
    this.side = this.window / this.patch;
    this.firstRow = Math.floor(this.above / this.cell);
    this.firstColumn = Math.floor(this.left / this.cell);
    this.rows = Math.ceil((this.above + grid.height) / this.cell) - this.firstRow;
    this.columns = Math.ceil((this.left + grid.width) / this.cell) - this.firstColumn;
  }

  /** Pixels of the scene, some negative, at which the first cell begins. */
  get cellOrigin() {
    return { top: this.firstRow * this.cell - this.above, left: this.firstColumn * this.cell - this.left };
  }

  /** Tops and lefts of the windows that end a stripe; stripe b reaches over the blocks b - 1 and b. */
  windowsOf(stripe) {
    const reach = this.window - this.stride;
    const [tops, lefts] = [[], []];
    for (let top = stripe * this.window - reach; top <= stripe * this.window; top += this.stride) {
      if (top < this.blocksDown * this.window) tops.push(top);
    }
    for (let left = -reach; left < this.blocksAcross * this.window; left += this.stride) lefts.push(left);
    return { tops, lefts };
  }

  /** Metres of a window's centre on the map projection. */
  centre(top, left) {
    const middle = this.window / 2;
    return [this.grid.x + SPACING * (left - this.left + middle), this.grid.y - SPACING * (top - this.above + middle)];
  }
}

const modulo = (value, by) => ((value % by) + by) % by;

/** The visible share of every patch of a frame, 0 outside it. */
export class Shares {
  constructor(frame, pixels) {
    const { patch, above, left, grid } = frame;
    this.rows = frame.blocksDown * frame.side;
    this.columns = frame.blocksAcross * frame.side;
    this.values = new Float32Array(this.rows * this.columns);
    const count = grid.width * grid.height;
    for (let y = 0; y < grid.height; y++) {
      const row = Math.floor((y + above) / patch) * this.columns;
      for (let x = 0; x < grid.width; x++) {
        let seen = 1;
        for (let b = 0; b < 7 && seen; b++) if (!pixels[b * count + y * grid.width + x]) seen = 0;
        this.values[row + Math.floor((x + left) / patch)] += seen;
      }
    }
    for (let i = 0; i < this.values.length; i++) this.values[i] /= patch * patch;
  }

  at(row, column) {
    return row < 0 || column < 0 || row >= this.rows || column >= this.columns ? 0 : this.values[row * this.columns + column];
  }

  /** Of a window whose first patch is there. */
  ofWindow(row, column, side) {
    let sum = 0;
    for (let r = 0; r < side; r++) for (let c = 0; c < side; c++) sum += this.at(row + r, column + c);
    return sum / (side * side);
  }
}

/** Two block rows of patches, to which windows add their vectors. */
export class BlendedRows {
  constructor(frame, width) {
    Object.assign(this, { frame, width, columns: frame.blocksAcross * frame.side });
    this.sum = new Float32Array(2 * frame.side * this.columns * width);
    this.weight = new Float32Array(2 * frame.side * this.columns);
  }

  /** Add a window's (side * side * width) vectors; its first patch is at a row of the upper block row, and a column. */
  add(row, column, field, offset, clear) {
    const { side } = this.frame;
    for (let r = Math.max(0, -row); r < side && row + r < 2 * side; r++) {
      for (let c = Math.max(0, -column); c < side && column + c < this.columns; c++) {
        // A window's say falls off towards its border: the product of two tents.
        const say = Math.min(r + 1, side - r) * Math.min(c + 1, side - c) * clear;
        const patch = (row + r) * this.columns + column + c;
        const [from, to] = [offset + (r * side + c) * this.width, patch * this.width];
        this.weight[patch] += say;
        for (let k = 0; k < this.width; k++) this.sum[to + k] += field[from + k] * say;
      }
    }
  }

  /** Write the upper block row's cells, NaN where too little is visible, and make room for the next. */
  finish(block, shares, minClear, cells) {
    const { frame, width } = this;
    const n = frame.cell / frame.patch;
    const perBlock = frame.window / frame.cell;
    for (let down = 0; down < perBlock; down++) {
      const row = block * perBlock + down - frame.firstRow;
      if (row < 0 || row >= frame.rows) continue;
      for (let column = 0; column < frame.columns; column++) {
        const to = (row * frame.columns + column) * width;
        this._cell(block, down * n, (column + frame.firstColumn) * n, n, shares, minClear, cells.subarray(to, to + width));
      }
    }
    const half = frame.side * this.columns;
    for (const [values, size] of [[this.sum, half * width], [this.weight, half]]) {
      values.copyWithin(0, size);
      values.fill(0, size);
    }
  }

  _cell(block, top, left, n, shares, minClear, out) {
    let seen = 0;
    const total = new Float64Array(this.width);
    for (let r = top; r < top + n; r++) {
      for (let c = left; c < left + n; c++) {
        const share = shares.at(block * this.frame.side + r, c);
        const patch = r * this.columns + c;
        if (!share || !this.weight[patch]) continue;
        seen += share;
        for (let k = 0; k < this.width; k++) total[k] += (this.sum[patch * this.width + k] / this.weight[patch]) * share;
      }
    }
    const enough = seen > 0 && seen >= minClear * n * n;
    for (let k = 0; k < this.width; k++) out[k] = enough ? total[k] / seen : NaN;
  }
}
