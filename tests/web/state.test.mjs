// The state of the editor, with Node's own test runner:  node --test tests/web/
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

// As a data URL, because Node takes a .js file outside a package for CommonJS, and the page needs no package.
const source = readFileSync(new URL('../../web/js/editor/state.js', import.meta.url), 'utf8');
const { EditorState, formatEdits, parseEdits } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

const NAMES = ['nose', 'tail', 'paw'];

function batch(changes = {}) {
  const images = [0, 1, 2, 3].map((i) => ({ key: `${i}.png`, name: `${i}.png`, size: [100, 80], file: null }));
  const points = [[10, 20, 0.9, 0], [50, 40, 0.1, 0], [0, 0, 0, 0]];
  const rows = images.map((_, image) => ({ image, figure: 0, points }));
  return { version: 1, mode: 'edit', names: NAMES, skeleton: [], colors: [], threshold: 0.3, note: '', images, rows, ...changes };
}

const editor = (text = '', changes = {}) => new EditorState(batch(changes), text);
const at = (state, k, row = state.row) => {
  const { x, y, state: how } = state.points(row)[k];
  return [x, y, how];
};
const saved = (state) => JSON.parse(state.text()).images;

test('untouched, there are no edits, and weak and missing points are told apart', () => {
  const state = editor();
  assert.equal(state.text(), '');
  assert.equal(state.changed, false);
  assert.deepEqual(state.points().map((p) => [p.state, p.low]), [['visible', false], ['visible', true], ['missing', false]]);
});

test('a moved point is written under its image and name, and read again as it was', () => {
  const state = editor();
  assert.ok(state.move([0], 3.25, -4));
  assert.deepEqual(saved(state), [{ image: '0.png', figure: 0, size: [100, 80], points: { nose: { x: 13.25, y: 16, state: 'visible' } } }]);
  const again = editor(state.text());
  assert.deepEqual(at(again, 0), [13.25, 16, 'visible']);
  assert.equal(again.text(), state.text());
  assert.equal(again.changed, false);
  assert.equal(again.points()[0].edited, true);
  assert.deepEqual(at(again, 0, 1), [10, 20, 'visible']);
});

test('points moved together keep their arrangement at the edge of the image', () => {
  const state = editor();
  state.move([0, 1], -30, 0);
  assert.deepEqual([at(state, 0), at(state, 1)], [[0, 20, 'visible'], [40, 40, 'visible']]);
  state.move([0, 1], 0, 1000);
  assert.deepEqual([at(state, 0)[1], at(state, 1)[1]], [60, 80]);
  assert.equal(state.move([2], 5, 5), false, 'a missing point cannot be moved');
});

test('steps of one gesture are undone together, other steps one by one', () => {
  const state = editor();
  for (const dx of [1, 2, 3]) state.move([0], dx, 0, 'drag 1');
  state.move([0], 10, 0, 'drag 2');
  assert.equal(at(state, 0)[0], 26);
  state.undo();
  assert.equal(at(state, 0)[0], 16);
  state.undo();
  assert.equal(at(state, 0)[0], 10);
  assert.equal(state.undo(), false);
  state.redo();
  state.redo();
  assert.equal(at(state, 0)[0], 26);
  assert.equal(state.redo(), false);
  state.undo();
  state.setState([1], 'deleted');
  assert.equal(state.redo(), false, 'a new edit ends what could be redone');
});

test('undo goes back to the image where the edit was made', () => {
  const state = editor();
  state.move([0], 1, 0);
  state.show(3);
  state.undo();
  assert.equal(state.row, 0);
});

test('what changes nothing is no step', () => {
  const state = editor();
  state.reset();
  state.resetAll();
  assert.equal(state.move([0], 0, 0, 'arrow') && state.done.length, 1, 'only that a point stays is said');
  state.reset([0]);
  assert.equal(state.text(), '');
});

test('delete, restore, occlude, reset', () => {
  const state = editor();
  state.toggle([0, 1], 'deleted');
  assert.deepEqual([at(state, 0)[2], at(state, 1)[2]], ['deleted', 'deleted']);
  assert.equal(state.points()[0].confidence, 0);
  state.toggle([0], 'deleted');
  assert.deepEqual(at(state, 0), [10, 20, 'visible']);
  state.toggle([0, 1], 'occluded');
  assert.deepEqual([at(state, 0)[2], at(state, 1)[2]], ['occluded', 'occluded']);
  state.move([0], 1, 1);
  assert.deepEqual(at(state, 0), [11, 21, 'occluded']);
  state.toggle([0, 1], 'occluded');
  assert.equal(at(state, 0)[2], 'visible');
  state.reset([0]);
  assert.equal(state.points()[0].edited, false);
  assert.equal(state.points()[1].edited, true);
  state.resetAll();
  assert.equal(state.text(), '');
});

test('a missing point is put somewhere, or appears among the others', () => {
  const state = editor();
  state.setState([2], 'deleted');
  assert.equal(state.text(), '', 'what is not there cannot be deleted');
  state.toggle([2], 'deleted');
  assert.deepEqual(at(state, 2), [30, 30, 'visible']);
  state.place(2, 99, 200);
  assert.deepEqual(at(state, 2), [99, 80, 'visible']);
});

test('copying to following images takes their size into account and goes no further than asked', () => {
  const state = editor();
  state.batch.images[2] = { ...state.batch.images[2], size: [200, 160] };
  state.move([0], 10, 0);
  state.setState([1], 'deleted');
  assert.equal(state.copyToFollowing(new Set([0]), 2), 2);
  assert.deepEqual(at(state, 0, 1), [20, 20, 'visible']);
  assert.deepEqual(at(state, 0, 2), [40, 40, 'visible']);
  assert.equal(state.points(3)[0].edited, false);
  assert.equal(state.points(1)[1].edited, false, 'only chosen points are copied');
  assert.equal(state.copyToFollowing(new Set()), 3);
  assert.equal(at(state, 1, 3)[2], 'deleted');
  state.undo();
  assert.equal(state.points(3)[0].edited, false);
});

test('other figures of the same image keep their own edits', () => {
  const rows = [0, 1].map((figure) => ({ image: 0, figure, points: batch().rows[0].points }));
  const state = editor('', { rows });
  state.show(1);
  state.move([0], 5, 5);
  assert.equal(state.points(0)[0].edited, false);
  assert.equal(saved(state)[0].figure, 1);
});

test('edits of an image that has another size now are scaled, and stay so when edited further', () => {
  const state = editor();
  state.move([0], 10, 0);
  const larger = batch();
  larger.images = larger.images.map((image) => ({ ...image, size: [200, 160] }));
  const grown = new EditorState(larger, state.text());
  assert.deepEqual(at(grown, 0), [40, 40, 'visible']);
  grown.setState([1], 'occluded');
  assert.deepEqual(at(grown, 0), [40, 40, 'visible']);
  assert.deepEqual(saved(grown)[0].size, [200, 160]);
});

test('after a run with other images, edits that have no use are kept', () => {
  const state = editor();
  state.move([0, 1], 1, 1);
  state.select([0, 2]);
  const other = batch({ names: ['nose', 'horn'] });
  other.images[0].key = '0.png';
  state.setBatch(other);
  assert.deepEqual([...state.selected], [0]);
  assert.match(state.text(), /tail/);
});

test('accepting says of each point that is there that it is right', () => {
  const state = editor();
  state.move([0], 2, 0);
  state.confirm();
  assert.equal(state.editedCount(0), 2);
  assert.deepEqual(at(state, 0), [12, 20, 'visible']);
});

test('a box chooses what lies in it, whichever way it is drawn', () => {
  const state = editor();
  assert.deepEqual(state.inBox(60, 50, 0, 0), [0, 1]);
  assert.deepEqual(state.inBox(0, 0, 20, 25), [0]);
});

test('labelling goes from joint to joint, and to the next when the image changes', () => {
  const rows = batch().rows.map((row) => ({ ...row, points: row.points.map(() => [0, 0, 0, 0]) }));
  const state = editor('', { rows, mode: 'label' });
  state.show(0);
  assert.deepEqual([...state.selected], [0]);
  state.place(0, 5, 5);
  state.selectNextMissing(0);
  assert.deepEqual([...state.selected], [1]);
  state.selectNextMissing(1);
  state.place(2, 6, 6);
  state.selectNextMissing(2);
  assert.deepEqual([...state.selected], [1], 'what was left out comes round again');
  state.show(1);
  assert.deepEqual([...state.selected], [0]);
});

test('text that is no edits is refused, and none is none', () => {
  assert.equal(parseEdits('').size, 0);
  assert.equal(formatEdits(new Map(), NAMES), '');
  for (const text of ['{', '{"version": 2, "images": []}', '[]', 'null']) assert.throws(() => parseEdits(text));
});

test('no rows at all is no reason to fail', () => {
  const state = editor('', { rows: [], images: [] });
  assert.deepEqual(state.points(), []);
  assert.equal(state.image, undefined);
  state.show(4);
  assert.equal(state.row, 0);
});
