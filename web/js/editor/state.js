// What the editor knows, without a page: detected points, edits on top of them, the selection, undo and redo.
//
// A batch comes from the server (nodes/comfy/point_editor.py); edits are the JSON text kept in the node, described in
// stablekp_core/keypoints/point_edits.py. Nothing here changes in place: each edit makes a new Map, undo keeps old ones.

const VERSION = 1;
const UNDO_STEPS = 200;

const entryKey = (image, figure) => JSON.stringify([image, figure]);
const round = (value) => Math.round(value * 1000) / 1000;

/** Edits from their text: Map of entry key -> {image, figure, size, points: {name: {x?, y?, state}}}. */
export function parseEdits(text) {
  if (!text || !text.trim()) return new Map();
  const data = JSON.parse(text);
  if (data?.version !== VERSION || !Array.isArray(data.images)) throw new Error('unknown edits');
  return new Map(data.images.map((entry) => {
    const { image, figure = 0, size, points } = entry;
    return [entryKey(image, figure), { image, figure, size, points: { ...points } }];
  }));
}

/** The inverse of parseEdits; no edits are empty text. */
export function formatEdits(entries, names) {
  const images = [...entries.values()].filter((entry) => Object.keys(entry.points).length);
  return images.length ? JSON.stringify({ version: VERSION, names, images }) : '';
}

export class EditorState {
  /** batch: see above. text: edits so far. A batch with other images or points keeps the edits it has no use for. */
  constructor(batch, text = '') {
    this.entries = parseEdits(text);
    this.undone = [];
    this.done = [];
    this.gesture = null;
    this.selected = new Set();
    this.row = 0;
    this.setBatch(batch);
    this.saved = this.text();
  }

  /** Other detections under the same edits, as after a run. */
  setBatch(batch) {
    this.batch = batch;
    this.names = batch.names;
    this.row = Math.min(this.row, Math.max(batch.rows.length - 1, 0));
    this.selected = new Set([...this.selected].filter((k) => k < this.names.length));
    this.gesture = null;
  }

  text() { return formatEdits(this.entries, this.names); }
  get changed() { return this.text() !== this.saved; }
  get labelling() { return this.batch.mode === 'label'; }
  get count() { return this.batch.rows.length; }
  get image() { return this.imageOf(this.row); }
  imageOf(row) { return this.batch.images[this.batch.rows[row]?.image]; }

  entryOf(row) {
    return this.entries.get(entryKey(this.imageOf(row)?.key, this.batch.rows[row]?.figure ?? 0));
  }

  /** All points of a row as they stand: {x, y, confidence, state, edited, low}; state may also be 'missing'. */
  points(row = this.row) {
    const entry = this.entryOf(row);
    const [width, height] = this.imageOf(row)?.size ?? [1, 1];
    return (this.batch.rows[row]?.points ?? []).map(([x, y, confidence, hidden], k) => {
      const edit = entry?.points[this.names[k]];
      if (!edit) {
        const state = confidence <= 0 ? 'missing' : hidden >= 0.5 ? 'occluded' : 'visible';
        return { x, y, confidence, state, edited: false, low: confidence > 0 && confidence < this.batch.threshold };
      }
      if (edit.x !== undefined) {
        x = edit.x * width / entry.size[0];
        y = edit.y * height / entry.size[1];
      }
      return { x, y, confidence: edit.state === 'deleted' ? 0 : 1, state: edit.state, edited: true, low: false };
    });
  }

  editedCount(row) { return Object.keys(this.entryOf(row)?.points ?? {}).length; }

  // Changing. `gesture` is the name of a movement: steps of one gesture are undone together.

  commit(change, gesture = null) {
    const entries = new Map(this.entries);
    change(entries);
    const same = (entry, old) => entry === old || JSON.stringify(entry) === JSON.stringify(old);
    if (entries.size === this.entries.size && [...entries].every(([key, entry]) => same(entry, this.entries.get(key)))) return false;
    if (!gesture || gesture !== this.gesture) {
      this.done.push({ entries: this.entries, row: this.row });
      if (this.done.length > UNDO_STEPS) this.done.shift();
    }
    this.undone = [];
    this.gesture = gesture;
    this.entries = entries;
    return true;
  }

  /** Give points of a row their edits: edits is {number: edit, or null to go back to the detected point}. */
  write(entries, row, edits) {
    const { key, size } = this.imageOf(row);
    const { figure } = this.batch.rows[row];
    const old = entries.get(entryKey(key, figure));
    const points = { ...old?.points };
    const scale = old ? [size[0] / old.size[0], size[1] / old.size[1]] : [1, 1];
    for (const edit of Object.keys(points)) {  // into pixels of the image as it is now
      const { x, y, state } = points[edit];
      if (x !== undefined) points[edit] = { x: round(x * scale[0]), y: round(y * scale[1]), state };
    }
    for (const [k, edit] of Object.entries(edits)) {
      if (edit) points[this.names[k]] = edit;
      else delete points[this.names[k]];
    }
    if (Object.keys(points).length) entries.set(entryKey(key, figure), { image: key, figure, size, points });
    else entries.delete(entryKey(key, figure));
  }

  edit(ids, makeEdit, gesture) {
    const points = this.points();
    const edits = {};
    for (const k of ids) {
      const made = makeEdit(points[k], k);
      if (made !== undefined) edits[k] = made;
    }
    return this.commit((entries) => this.write(entries, this.row, edits), gesture);
  }

  placed(x, y, state) {
    const [width, height] = this.image.size;
    const inside = (value, most) => round(Math.min(Math.max(value, 0), most));
    return { x: inside(x, width), y: inside(y, height), state };
  }

  /** Move points that are there by (dx, dy) pixels of the image, together: none of them leaves it. */
  move(ids, dx, dy, gesture) {
    const points = this.points();
    const there = [...ids].filter((k) => points[k].state === 'visible' || points[k].state === 'occluded');
    if (!there.length) return false;
    const [width, height] = this.image.size;
    const room = (values, step, most) => {
      const low = Math.min(0, -Math.min(...values)), high = Math.max(0, most - Math.max(...values));
      return Math.min(Math.max(step, low), high);
    };
    dx = room(there.map((k) => points[k].x), dx, width);
    dy = room(there.map((k) => points[k].y), dy, height);
    return this.edit(there, (p) => this.placed(p.x + dx, p.y + dy, p.state), gesture);
  }

  /** Put one point somewhere; a missing or deleted one is there again. */
  place(k, x, y, gesture) {
    return this.edit([k], (p) => this.placed(x, y, p.state === 'occluded' ? 'occluded' : 'visible'), gesture);
  }

  /** Where a point without a place of its own appears: among the others, or in the middle. */
  restingPlace(points) {
    const there = points.filter((p) => p.state === 'visible' || p.state === 'occluded');
    if (!there.length) return this.image.size.map((side) => side / 2);
    return ['x', 'y'].map((axis) => there.reduce((sum, p) => sum + p[axis], 0) / there.length);
  }

  /** state: 'visible' (also restores), 'occluded' or 'deleted'. */
  setState(ids, state) {
    const points = this.points();
    const [x, y] = this.restingPlace(points);
    return this.edit(ids, (p) => (state === 'deleted'
      ? (p.state === 'missing' ? undefined : this.placed(p.x, p.y, state))
      : p.state === 'missing' ? this.placed(x, y, state) : this.placed(p.x, p.y, state)));
  }

  toggle(ids, state) {
    const points = this.points();
    const all = [...ids].every((k) => points[k].state === state || (state === 'deleted' && points[k].state === 'missing'));
    return this.setState(ids, all ? 'visible' : state);
  }

  /** Say that all points that are there are right as they stand (a guess becomes a label, a frame a fixed one). */
  confirm(ids = this.names.keys()) {
    return this.edit(ids, (p) => (p.state === 'missing' || p.edited ? undefined : this.placed(p.x, p.y, p.state)));
  }

  /** Back to what was detected. */
  reset(ids = this.names.keys()) { return this.edit(ids, () => null); }
  resetAll() { return this.commit((entries) => entries.clear()); }

  /** Give the edited points (of ids, or all) of this image to the same figure of up to `most` following images. */
  copyToFollowing(ids, most = Infinity) {
    const entry = this.entryOf(this.row);
    const { image, figure } = this.batch.rows[this.row];
    const chosen = [...(ids.size ? ids : this.names.keys())].filter((k) => entry?.points[this.names[k]]);
    const rows = [...this.batch.rows.keys()].filter((row) => {
      const other = this.batch.rows[row];
      return other.figure === figure && other.image > image && other.image <= image + most;
    });
    if (!chosen.length || !rows.length) return 0;
    const points = this.points();
    this.commit((entries) => {
      for (const row of rows) {
        const share = this.imageOf(row).size.map((side, axis) => side / this.image.size[axis]);
        const copy = (p) => ({ x: round(p.x * share[0]), y: round(p.y * share[1]), state: p.state });
        this.write(entries, row, Object.fromEntries(chosen.map((k) => [k, copy(points[k])])));
      }
    });
    return rows.length;
  }

  undo() { return this.step(this.done, this.undone); }
  redo() { return this.step(this.undone, this.done); }

  step(from, to) {
    const moment = from.pop();
    if (!moment) return false;
    to.push({ entries: this.entries, row: this.row });
    this.entries = moment.entries;
    this.row = Math.min(moment.row, Math.max(this.count - 1, 0));
    this.gesture = null;
    return true;
  }

  // Choosing

  select(ids, add = false) {
    this.gesture = null;
    this.selected = new Set(add ? [...this.selected, ...ids] : ids);
  }

  toggleSelected(k) {
    this.gesture = null;
    if (!this.selected.delete(k)) this.selected.add(k);
  }

  /** Points that are there, inside a box in pixels of the image. */
  inBox(x0, y0, x1, y1) {
    const inside = (p) => p.x >= Math.min(x0, x1) && p.x <= Math.max(x0, x1)
      && p.y >= Math.min(y0, y1) && p.y <= Math.max(y0, y1);
    return this.points().flatMap((p, k) => (p.state !== 'missing' && inside(p) ? [k] : []));
  }

  show(row) {
    this.gesture = null;
    this.row = Math.min(Math.max(row, 0), Math.max(this.count - 1, 0));
    if (this.labelling) this.selectNextMissing();
  }

  /** In labelling: the next joint that no one has placed, after number `after`. */
  selectNextMissing(after = -1) {
    const points = this.points();
    const order = [...points.keys()].map((i) => (after + 1 + i) % points.length);
    const next = order.find((k) => points[k].state === 'missing');
    this.select(next === undefined ? [] : [next]);
  }
}
