import assert from 'node:assert/strict';
import test from 'node:test';
import { migrate } from '../../web/js/migrate.js';

const widget = (name) => ({ name, type: 'COMBO', widget: { name }, link: null });
const points = { name: 'keypoints', type: 'STABLEKP_KEYPOINTS', link: 3 };
const migrated = (node) => { migrate(node); return node; };
const DRAW = ['canvas', 'dots', 'numbers', 'lines', 'line_width'];

test('Draw keeps what its style has', () => {
  const rest = [0.25, '0-3', 512, 768, 'crop'];
  for (const [style, own] of [['openpose', []], ['animal openpose', []], ['scribble', [4]], ['points', ['black', false, true, false, 4]]]) {
    const saved = { type: 'StableKPDraw', widgets_values: [style, 'black', false, true, false, 4, ...rest] };
    assert.deepEqual(migrated(saved).widgets_values, [style, ...own, ...rest]);
    assert.deepEqual(migrated(saved).widgets_values, [style, ...own, ...rest], 'a second time changes nothing');
  }
});

test('inputs of widgets get the names of today, wires stay', () => {
  const saved = {
    type: 'StableKPDraw', inputs: [points, widget('style'), ...DRAW.map(widget), widget('fit')],
    widgets_values: ['points', 'black', true, true, true, 0, 0, '', 0, 0, 'contain'],
  };
  const names = migrated(saved).inputs.map((input) => input.name);
  assert.deepEqual(names, ['keypoints', 'style', ...DRAW.map((name) => `style.${name}`), 'fit']);
  assert.deepEqual(saved.inputs.map((input) => input.widget?.name ?? input.name), names);
  assert.equal(saved.inputs[0].link, 3);
});

test('Smooth keeps what its method has', () => {
  const of = (method) => migrated({
    type: 'StableKPSmooth', widgets_values: [method, 11, 3, 25, 0.5, 0.1, 7, 0.2, 'none', true],
  }).widgets_values;
  assert.deepEqual(of('savitzky-golay'), ['savitzky-golay', 11, 3, 7, 0.2, 'none']);
  assert.deepEqual(of('one-euro'), ['one-euro', 25, 0.5, 0.1, true, 7, 0.2, 'none']);
  assert.deepEqual(of('none'), ['none', 7, 0.2, 'none']);
});

test('Detect loses noise_draws', () => {
  const saved = { type: 'StableKPDetect', inputs: [points, widget('noise_draws')],
    widgets_values: [10, 8, true, 'off', 1, 5, 0.15, 'none'] };
  assert.deepEqual(migrated(saved).widgets_values, [10, 8, true, 'off', 5, 0.15, 'none']);
  assert.deepEqual(saved.inputs, [points]);
});

test('nodes of today and of others stay as they are', () => {
  for (const node of [
    { type: 'StableKPDraw', widgets_values: ['openpose', 0, '', 0, 0, 'contain'] },
    { type: 'StableKPSmooth', widgets_values: ['one-euro', 25, 0.5, 0.1, true, 7, 0.2, 'none'] },
    { type: 'StableKPDetect', widgets_values: [10, 8, true, 'off', 5, 0.15, 'none'] },
    { type: 'KSampler', widgets_values: [1, 'fixed', 20, 7, 'euler', 'normal', 1] },
    { type: 'StableKPDraw' },
  ]) assert.deepEqual(migrated(structuredClone(node)), node);
});
