// The picture of the editor: draws image, skeleton and points, and turns pointer movements into edits.

const REACH = 14;  // screen pixels from a point that still touch it
const KEPT_IMAGES = 6;
const TAU = 2 * Math.PI;

export class Stage {
  /** canvas: the element. state: EditorState. urlOf: image file -> address. changed: called after anything changed. */
  constructor(canvas, state, urlOf, changed) {
    Object.assign(this, { canvas, state, urlOf, changed, images: new Map(), pointers: new Map(), view: null });
    canvas.stablekpStage = this;
    this.showNames = false;
    this.showBones = true;
    this.box = this.drag = this.hover = null;
    const on = (name, listener, options) => canvas.addEventListener(name, listener, options);
    on('pointerdown', (event) => this.down(event));
    on('pointermove', (event) => this.motion(event));
    on('pointerup', (event) => this.up(event));
    on('pointercancel', (event) => this.up(event));
    on('wheel', (event) => this.wheel(event), { passive: false });
    on('contextmenu', (event) => event.preventDefault());
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(canvas);
  }

  close() { this.observer.disconnect(); this.images.clear(); }

  // View: screen = image * scale + shift

  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [w, h] = this.state.image?.size ?? [1, 1];
    const scale = 0.94 * Math.min(width / w, height / h) || 1;
    this.view = { scale, x: (width - w * scale) / 2, y: (height - h * scale) / 2, of: `${w}x${h}` };
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const scale = Math.min(Math.max(this.view.scale * factor, 0.02), 60);
    const grown = scale / this.view.scale;
    Object.assign(this.view, { scale, x: x - (x - this.view.x) * grown, y: y - (y - this.view.y) * grown });
    this.draw();
  }

  toScreen(p) { return [p.x * this.view.scale + this.view.x, p.y * this.view.scale + this.view.y]; }
  toImage(x, y) { return [(x - this.view.x) / this.view.scale, (y - this.view.y) / this.view.scale]; }

  /** The point under a place on the screen, the nearest and, among those, chosen ones first; -1 for none. */
  hit(x, y) {
    let best = -1, distance = REACH;
    this.state.points().forEach((p, k) => {
      if (p.state === 'missing') return;
      const [px, py] = this.toScreen(p);
      const away = Math.hypot(px - x, py - y) - (this.state.selected.has(k) ? 4 : 0);
      if (away < distance) [best, distance] = [k, away];
    });
    return best;
  }

  // Pointer

  at(event) {
    const bounds = this.canvas.getBoundingClientRect();
    return [event.clientX - bounds.left, event.clientY - bounds.top];
  }

  down(event) {
    const [x, y] = this.at(event);
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [x, y]);
    this.box = null;
    if (this.pointers.size > 1 || event.button === 1 || event.button === 2 || this.panning) {
      this.drag = { kind: 'view' };
      return;
    }
    const { state } = this;
    const k = this.hit(x, y);
    if (k >= 0) {
      const add = event.shiftKey || event.ctrlKey || event.metaKey;
      if (add) state.toggleSelected(k);
      else if (!state.selected.has(k)) state.select([k]);
      this.drag = { kind: 'points', from: [x, y], name: `drag ${event.timeStamp}`, k, moved: false };
    } else if (this.placeable() >= 0) {
      const chosen = this.placeable();
      state.place(chosen, ...this.toImage(x, y), `drag ${event.timeStamp}`);
      this.drag = { kind: 'points', from: [x, y], name: `drag ${event.timeStamp}`, k: chosen, moved: true, placing: true };
    } else {
      this.drag = { kind: 'box', add: event.shiftKey };
      this.box = [x, y, x, y];
    }
    this.changed();
  }

  /** The one chosen point, if it is not on the image yet; -1 otherwise. */
  placeable() {
    const [k] = this.state.selected;
    return this.state.selected.size === 1 && this.state.points()[k]?.state === 'missing' ? k : -1;
  }

  motion(event) {
    const [x, y] = this.at(event);
    const last = this.pointers.get(event.pointerId);
    if (!last || !this.drag) {
      const k = this.hit(x, y);
      if (k !== this.hover) {
        this.hover = k;
        this.canvas.style.cursor = k >= 0 ? 'move' : this.placeable() >= 0 ? 'crosshair' : 'default';
        this.draw();
      }
      return;
    }
    this.pointers.set(event.pointerId, [x, y]);
    const step = [x - last[0], y - last[1]];
    if (this.drag.kind === 'view') this.turnView(event.pointerId, last, step);
    else if (this.drag.kind === 'box') {
      this.box = [this.box[0], this.box[1], x, y];
      this.draw();
    } else {
      // A click that trembles is no movement.
      this.drag.moved ||= Math.hypot(x - this.drag.from[0], y - this.drag.from[1]) > (event.pointerType === 'touch' ? 6 : 2);
      if (!this.drag.moved) { this.pointers.set(event.pointerId, last); return; }
      const { scale } = this.view;
      if (this.state.points()[this.drag.k].state === 'deleted') this.state.place(this.drag.k, ...this.toImage(x, y), this.drag.name);
      else this.state.move(this.state.selected, step[0] / scale, step[1] / scale, this.drag.name);
      this.changed();
    }
  }

  /** One finger or the middle button moves the view; two fingers also stretch it. */
  turnView(id, last, step) {
    const others = [...this.pointers].filter(([other]) => other !== id).map(([, place]) => place);
    this.view.x += step[0] / (others.length + 1);
    this.view.y += step[1] / (others.length + 1);
    if (others.length) {
      const [[ox, oy]] = others;
      const before = Math.hypot(last[0] - ox, last[1] - oy);
      if (before > 8) this.zoom(Math.hypot(last[0] + step[0] - ox, last[1] + step[1] - oy) / before, ox, oy);
    }
    this.draw();
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size || !this.drag) return;
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      const moved = Math.hypot(x1 - x0, y1 - y0) > 3;
      const found = moved ? this.state.inBox(...this.toImage(x0, y0), ...this.toImage(x1, y1)) : [];
      this.state.select(found, this.drag.add);
    }
    if (this.drag.placing && this.state.labelling) this.state.selectNextMissing(this.drag.k);
    this.drag = this.box = null;
    this.changed();
  }

  wheel(event) {
    event.preventDefault();
    const [x, y] = this.at(event);
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
  }

  // Images: loaded when looked at, and only the last few are kept.

  imageFor(row) {
    const file = this.state.imageOf(row)?.file;
    if (!file) return null;
    const url = this.urlOf(file);
    let image = this.images.get(url);
    if (!image) {
      image = new Image();
      image.onload = image.onerror = () => this.draw();
      image.src = url;
    }
    this.images.delete(url);
    this.images.set(url, image);
    for (const old of [...this.images.keys()].slice(0, -KEPT_IMAGES)) {
      this.images.get(old).src = '';
      this.images.delete(old);
    }
    return image;
  }

  // Drawing

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.paint(); });
  }

  paint() {
    const { canvas, state } = this;
    const size = state.image?.size;
    if (!canvas.clientWidth || !size) return;
    if (this.view?.of !== size.join('x')) { this.fit(); return; }
    const ratio = canvas.ownerDocument.defaultView.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    this.paintImage(pen, size);
    const points = state.points();
    if (this.showBones) this.paintBones(pen, points);
    points.forEach((p, k) => this.paintPoint(pen, p, k));
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      pen.fillStyle = 'rgba(90, 160, 255, 0.15)';
      pen.strokeStyle = 'rgb(120, 180, 255)';
      pen.setLineDash([4, 3]);
      pen.fillRect(x0, y0, x1 - x0, y1 - y0);
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      pen.setLineDash([]);
    }
  }

  paintImage(pen, size) {
    const { scale, x, y } = this.view;
    const image = this.imageFor(this.state.row);
    pen.fillStyle = '#000';
    pen.fillRect(x, y, size[0] * scale, size[1] * scale);
    if (image?.complete && image.naturalWidth) {
      pen.imageSmoothingEnabled = scale * size[0] < 4 * image.naturalWidth;
      pen.drawImage(image, x, y, size[0] * scale, size[1] * scale);
      if (this.state.row + 1 < this.state.count) this.imageFor(this.state.row + 1);  // ready when it is wanted
      this.imageFor(this.state.row);
    }
  }

  paintBones(pen, points) {
    const there = (p) => p && (p.state === 'visible' || p.state === 'occluded');
    for (const [a, b] of this.state.batch.skeleton) {
      if (!there(points[a]) || !there(points[b])) continue;
      const ends = [...this.toScreen(points[a]), ...this.toScreen(points[b])];
      const shade = pen.createLinearGradient(...ends);
      shade.addColorStop(0, this.color(a));
      shade.addColorStop(1, this.color(b));
      for (const [style, wide] of [['rgba(0, 0, 0, 0.6)', 5], [shade, 3]]) {
        pen.strokeStyle = style;
        pen.lineWidth = wide;
        pen.beginPath();
        pen.moveTo(ends[0], ends[1]);
        pen.lineTo(ends[2], ends[3]);
        pen.stroke();
      }
    }
  }

  color(k) { return `rgb(${this.state.batch.colors[k].join()})`; }

  paintPoint(pen, p, k) {
    if (p.state === 'missing') return;
    const [x, y] = this.toScreen(p);
    const chosen = this.state.selected.has(k);
    const circle = (radius, fill, stroke, wide = 1.5) => {
      pen.beginPath();
      pen.arc(x, y, radius, 0, TAU);
      if (fill) { pen.fillStyle = fill; pen.fill(); }
      if (stroke) { pen.strokeStyle = stroke; pen.lineWidth = wide; pen.stroke(); }
    };
    if (p.low) {  // little confidence: a broken amber ring
      circle(14, 'rgba(0, 0, 0, 0.3)', 'rgba(0, 0, 0, 0.8)', 5);
      pen.setLineDash([6, 4]);
      circle(14, null, 'rgb(255, 180, 40)', 3);
      pen.setLineDash([]);
    }
    if (chosen) circle(10.5, null, '#000', 5);
    if (chosen || k === this.hover) circle(10.5, null, chosen ? '#fff' : 'rgba(255, 255, 255, 0.6)', 2.5);
    if (p.state === 'deleted') {
      for (const [style, wide] of [['#000', 5], ['#e66', 2.5]]) {
        pen.strokeStyle = style;
        pen.lineWidth = wide;
        pen.beginPath();
        pen.moveTo(x - 5, y - 5); pen.lineTo(x + 5, y + 5);
        pen.moveTo(x + 5, y - 5); pen.lineTo(x - 5, y + 5);
        pen.stroke();
      }
    } else {
      pen.globalAlpha = this.state.labelling && !p.edited ? 0.55 : 1;  // a guess is paler than a label
      circle(7, this.color(k), '#000', 1.5);
      pen.globalAlpha = 1;
      if (p.state === 'occluded') circle(4, '#111');
      else if (p.edited) circle(2.2, '#fff', '#000', 1);
    }
    this.paintText(pen, this.showNames ? this.state.names[k] : String(k), x + 10, y - 8, p.state === 'deleted');
  }

  paintText(pen, text, x, y, faint) {
    pen.font = '600 12px system-ui, sans-serif';
    pen.lineJoin = 'round';
    pen.lineWidth = 3.5;
    pen.strokeStyle = 'rgba(0, 0, 0, 0.85)';
    pen.fillStyle = faint ? '#bbb' : '#fff';
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
  }
}
