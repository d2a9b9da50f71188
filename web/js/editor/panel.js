// The window of the editor: buttons, list of points, keys and messages around the canvas.
//
// It lies in a frame of its own over the page, so that neither ComfyUI's keys (Ctrl+Z, Delete) nor its styles meet ours.

import { Stage } from './canvas.js';
import { EditorState } from './state.js';

const ICONS = {
  undo: 'M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3',
  redo: 'm15 14 5-5-5-5m5 5H10a6 6 0 0 0 0 12h3',
  all: 'M4 8V4h4m8 0h4v4m0 8v4h-4m-8 0H4v-4M12 9v6m-3-3h6',
  deleted: 'M4 7h16M9 7V4h6v3m-8 0 1 13h8l1-13m-6 4v6',
  occluded: 'M3 3l18 18M10 6a9 9 0 0 1 11 6 14 14 0 0 1-3 4M6 8a13 13 0 0 0-3 4 10 10 0 0 0 13 5',
  reset: 'M4 4v6h6M5 15a8 8 0 1 0 1-8L4 10',
  resetAll: 'M4 4v6h6M5 15a8 8 0 1 0 1-8L4 10m6 0 5 5m0-5-5 5',
  copy: 'M8 4h10v12M4 8h10v12H4zM17 18h5m-2-2 2 2-2 2',
  names: 'M4 6h16M12 6v13M9 19h6',
  bones: 'M6 6l5 5 7-4M11 11v7M5 5h2v2H5zM17 6h2v2h-2zM10 17h2v2h-2z',
  minus: 'M5 12h14',
  fit: 'M4 9V4h5m6 0h5v5m0 6v5h-5m-6 0H4v-5',
  plus: 'M5 12h14M12 5v14',
  previous: 'm15 5-7 7 7 7',
  next: 'm9 5 7 7-7 7',
  accept: 'm4 12 5 5L20 6',
};

export class Panel {
  /**
   * options: batch, text (edits so far), urlOf (image file -> address), t (key, values -> text in the user's language),
   * title, problem (a sentence or empty), apply (text -> nothing), run (text -> nothing), closed (-> nothing).
   */
  constructor(options) {
    Object.assign(this, options);
    this.state = new EditorState(this.batch, this.text);
    this.dialog = document.createElement('dialog');
    this.dialog.className = 'stablekp-editor';
    this.dialog.style.cssText = 'position:fixed;inset:0;width:100vw;height:100vh;max-width:none;max-height:none;padding:0;'
      + 'margin:0;border:0;background:#111;overflow:hidden';
    this.dialog.setAttribute('aria-label', this.title);
    this.dialog.addEventListener('cancel', (event) => { event.preventDefault(); this.cancel(); });
    const frame = document.createElement('iframe');
    frame.title = this.title;
    frame.style.cssText = 'width:100%;height:100%;border:0;display:block';
    this.dialog.append(frame);
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.page = frame.contentDocument;
    this.build();
    frame.contentWindow.focus();
    this.canvas.focus();
  }

  // Building

  make(tag, properties = {}, ...children) {
    const element = Object.assign(this.page.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  button(name, action, { keys = '', text = '', primary = false } = {}) {
    const label = this.t(name) + (keys ? ` (${keys})` : '');
    const button = this.make('button', { type: 'button', title: label, className: primary ? 'primary' : '' });
    button.dataset.name = name;
    button.setAttribute('aria-label', label);
    if (ICONS[name]) {
      button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;
    }
    if (text || !ICONS[name]) button.append(this.make('span', { textContent: text || this.t(name) }));
    button.onclick = () => { action(); this.canvas.focus(); };
    this.buttons[name] = button;
    return button;
  }

  build() {
    const { page, state, t } = this;
    this.buttons = {};
    page.documentElement.lang = t('lang');
    page.head.append(this.make('link', { rel: 'stylesheet', href: new URL('./editor.css', import.meta.url).href }));
    this.canvas = this.make('canvas', { tabIndex: 0 });
    this.canvas.setAttribute('role', 'application');
    this.canvas.setAttribute('aria-label', t('canvas'));
    this.list = this.make('div', { className: 'list' });
    this.list.setAttribute('role', 'listbox');
    this.list.setAttribute('aria-multiselectable', 'true');
    this.list.setAttribute('aria-label', t('points'));
    this.where = this.make('span', { className: 'where' });
    this.slider = this.make('input', { type: 'range', min: 1, step: 1 });
    this.slider.setAttribute('aria-label', t('image'));
    this.slider.oninput = () => this.show(Number(this.slider.value) - 1);
    this.status = this.make('div', { className: 'status' });
    this.status.setAttribute('role', 'status');
    this.note = this.make('div', { className: 'note' });
    this.note.setAttribute('role', 'alert');
    this.howMany = this.make('input', { type: 'number', min: 1, placeholder: t('allFrames'), className: 'many' });
    this.howMany.setAttribute('aria-label', t('howMany'));
    this.howMany.title = t('howMany');
    const group = (...children) => this.make('div', { className: 'group' }, ...children);
    const button = (...values) => this.button(...values);
    const chosen = (action) => () => { if (state.selected.size) action(state.selected); this.refresh(); };
    const doing = (action) => () => { action(); this.refresh(); };
    this.frames = group(button('previous', () => this.show(state.row - 1), { keys: 'PageUp' }), this.slider,
      button('next', () => this.show(state.row + 1), { keys: 'PageDown' }));
    this.following = group(button('copy', () => this.copy(), { keys: 'C' }), this.howMany);
    page.body.append(
      this.make('header', {}, this.make('h1', { textContent: this.title }), this.frames, this.where),
      this.make('div', { className: 'tools' },
        group(button('undo', doing(() => state.undo()), { keys: 'Ctrl+Z' }),
          button('redo', doing(() => state.redo()), { keys: 'Ctrl+Y' })),
        group(button('all', () => this.selectAll(), { keys: 'Ctrl+A' }),
          button('deleted', chosen((ids) => this.delete(ids)), { keys: 'Del' }),
          button('occluded', chosen((ids) => state.toggle(ids, 'occluded')), { keys: 'O' }),
          button('reset', chosen((ids) => state.reset(ids)), { keys: 'R' })),
        this.following,
        group(button('accept', () => this.accept(), { keys: 'Enter', text: t('accept') })),
        group(button('minus', () => this.stage.zoom(1 / 1.3), { keys: '−' }), button('fit', () => this.stage.fit(), { keys: '0' }),
          button('plus', () => this.stage.zoom(1.3), { keys: '+' })),
        group(button('names', () => this.flip('showNames', 'names'), { keys: 'N' }),
          button('bones', () => this.flip('showBones', 'bones'), { keys: 'B' })),
        group(button('resetAll', doing(() => state.resetAll()), { text: t('resetAll') }))),
      this.note,
      this.make('main', {}, this.canvas, this.make('aside', {}, this.list, this.make('p', { textContent: t(state.labelling ? 'labelHelp' : 'help') }))),
      this.make('footer', {}, this.status,
        button('cancel', () => this.cancel(), { keys: 'Esc' }), button('run', () => this.applyAndRun(), { keys: 'Ctrl+Enter' }),
        button('apply', () => this.finish(), { primary: true })));
    this.stage = new Stage(this.canvas, state, this.urlOf, () => this.refresh());
    page.addEventListener('keydown', (event) => this.key(event));
    if (state.labelling) state.show(this.firstUnlabelled());
    this.flip(null);
    this.refresh();
  }

  // What it shows

  refresh() {
    const { state, t, buttons } = this;
    const points = state.points();
    this.slider.max = Math.max(state.count, 1);
    this.slider.value = state.row + 1;
    this.frames.hidden = this.following.hidden = state.count < 2;
    this.buttons.accept.parentElement.hidden = !points.some((p) => !p.edited && p.state !== 'missing');
    const figure = state.batch.rows[state.row]?.figure;
    this.where.textContent = state.count
      ? `${state.row + 1} / ${state.count} · ${state.image.name}${figure ? ` · ${t('figure', { n: figure + 1 })}` : ''}` : '';
    buttons.undo.disabled = !state.done.length;
    buttons.redo.disabled = !state.undone.length;
    buttons.previous.disabled = state.row === 0;
    buttons.next.disabled = state.row >= state.count - 1;
    for (const name of ['deleted', 'occluded', 'reset']) buttons[name].disabled = !state.selected.size;
    buttons.copy.disabled = !state.editedCount(state.row);
    this.note.textContent = [state.batch.note, this.problem].filter(Boolean).join(' ');
    this.note.hidden = !this.note.textContent;
    this.refreshList(points);
    this.status.textContent = this.summary(points);
    this.stage.draw();
  }

  refreshList(points) {
    const { state, t, list } = this;
    while (list.children.length > points.length) list.lastChild.remove();
    points.forEach((p, k) => {
      let item = list.children[k];
      if (!item) {
        item = this.make('button', { type: 'button' });
        item.setAttribute('role', 'option');
        item.innerHTML = '<i></i><b></b><span></span>';
        item.onclick = (event) => {
          if (event.shiftKey || event.ctrlKey || event.metaKey) state.toggleSelected(k); else state.select([k]);
          this.refresh();
        };
        list.append(item);
      }
      item.className = `${state.labelling && p.state === 'missing' ? 'todo' : p.state} ${p.low ? 'low' : ''} ${p.edited ? 'edited' : ''}`;
      item.setAttribute('aria-selected', state.selected.has(k));
      item.children[0].style.background = this.stage.color(k);
      item.children[1].textContent = state.names[k] === `kp${k}` ? String(k) : `${k} ${state.names[k]}`;
      const plain = p.state === 'visible' && !p.edited;
      const sure = state.labelling ? t('guess') : `${Math.round(100 * p.confidence)} %`;
      const placed = t(state.labelling ? 'labelled' : 'moved');
      item.children[2].textContent = plain ? sure : p.state === 'visible' ? placed : state.labelling && p.state === 'missing' ? '' : t(`is_${p.state}`);
    });
    const first = [...state.selected][0];
    if (first !== undefined && first !== this.listed) list.children[first]?.scrollIntoView({ block: 'nearest' });
    this.listed = first;
  }

  /** One line for eyes and screen readers: the chosen point, or what is edited. */
  summary(points) {
    const { state, t } = this;
    if (!state.count) return t('noFigures');
    if (state.selected.size === 1) {
      const [k] = state.selected;
      const p = points[k];
      if (p.state === 'missing') return t('place', { name: state.names[k] });
      return t('chosen', { name: state.names[k], x: p.x.toFixed(1), y: p.y.toFixed(1), state: t(`is_${p.state}`) });
    }
    if (state.selected.size > 1) return t('chosenMany', { n: state.selected.size });
    const rows = [...state.batch.rows.keys()].map((row) => state.editedCount(row)).filter(Boolean);
    return t(state.labelling ? 'labelledIn' : 'edited', { n: rows.reduce((sum, n) => sum + n, 0), images: rows.length });
  }

  // What it does

  flip(option, name) {
    if (option) this.stage[option] = !this.stage[option];
    this.buttons.names.setAttribute('aria-pressed', this.stage.showNames);
    this.buttons.bones.setAttribute('aria-pressed', this.stage.showBones);
    this.stage.draw();
  }

  show(row) { this.state.show(row); this.refresh(); }
  selectAll() { this.state.select(this.state.names.keys()); this.refresh(); }

  /** In labelling, Del on a joint that is still to be placed leaves it out. */
  delete(ids) {
    if (this.state.labelling && this.stage.placeable() >= 0) this.state.selectNextMissing(this.stage.placeable());
    else this.state.toggle(ids, 'deleted');
  }

  copy() {
    const most = this.howMany.valueAsNumber || Infinity;
    const images = this.state.copyToFollowing(this.state.selected, most);
    this.refresh();
    if (images) this.status.textContent = this.t('copied', { n: images });
  }

  accept() {
    this.state.confirm();
    if (this.state.labelling && this.state.row < this.state.count - 1) this.state.show(this.state.row + 1);
    this.refresh();
  }

  firstUnlabelled() {
    const rows = [...this.state.batch.rows.keys()];
    return Math.max(rows.findIndex((row) => !this.state.editedCount(row)), 0);
  }

  key(event) {
    const { state } = this;
    const command = event.ctrlKey || event.metaKey;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.target.type === 'number' && name !== 'Escape') return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const press = (button) => () => { if (!this.buttons[button].disabled && !this.buttons[button].parentElement.hidden) this.buttons[button].click(); };
    const plain = {
      Delete: press('deleted'), Backspace: press('deleted'), o: press('occluded'), r: press('reset'), c: press('copy'),
      n: press('names'), b: press('bones'), 0: press('fit'), '+': press('plus'), '=': press('plus'), '-': press('minus'),
      PageUp: press('previous'), PageDown: press('next'), ',': press('previous'), '.': press('next'),
      Escape: () => { if (state.selected.size) { state.select([]); this.refresh(); } else this.cancel(); },
      ' ': () => { this.stage.panning = true; },
    };
    const commands = { z: press(event.shiftKey ? 'redo' : 'undo'), y: press('redo'), a: press('all'), Enter: press('run') };
    let action = (command ? commands : plain)[name];
    if (name === 'Enter' && !command && event.target === this.canvas) action = press('accept');
    if (event.target !== this.canvas && name === ' ') return;  // a space presses the button it stands on
    if (arrows[name] && event.target !== this.slider) {
      const [dx, dy] = arrows[name].map((step) => step * (event.shiftKey ? 10 : 1));
      action = () => { state.move(state.selected, dx, dy, event.repeat ? state.gesture : `arrow ${event.timeStamp}`); this.refresh(); };
    }
    if (!action) return;
    event.preventDefault();
    action();
    if (name === ' ') this.page.addEventListener('keyup', () => { this.stage.panning = false; }, { once: true });
  }

  /** New detections for the same node, after a run. */
  setBatch(batch) {
    this.problem = '';
    this.state.setBatch(batch);
    if (this.state.labelling) this.state.show(this.firstUnlabelled());
    this.refresh();
  }

  applyAndRun() {
    this.state.saved = this.state.text();
    this.run(this.state.saved);
    this.status.textContent = this.t('running');
    if (!this.state.labelling) this.close();
  }

  finish() { this.apply(this.state.text()); this.close(); }

  cancel() {
    if (this.state.changed && !this.dialog.ownerDocument.defaultView.confirm(this.t('discard'))) return;
    this.close();
  }

  close() {
    this.stage.close();
    this.dialog.close();
    this.dialog.remove();
    this.closed();
  }
}
