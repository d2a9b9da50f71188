// The values of nodes in workflows that were saved before Draw's style and Smooth's method brought inputs of their own,
// and while Detect had noise_draws. No page is needed here.

const DRAW = ['canvas', 'dots', 'numbers', 'lines', 'line_width'];
const CHOICES = {  // node id -> its widgets as they were saved, and which of them each choice keeps
  StableKPDraw: {
    saved: ['style', ...DRAW, 'threshold', 'which', 'out_width', 'out_height', 'fit'],
    own: { points: DRAW, scribble: ['line_width'], openpose: [], 'animal openpose': [] },
  },
  StableKPSmooth: {
    saved: ['method', 'window', 'order', 'fps', 'min_cutoff', 'beta', 'fill', 'threshold', 'may_swap', 'causal'],
    own: { 'savitzky-golay': ['window', 'order'], 'one-euro': ['fps', 'min_cutoff', 'beta', 'causal'], none: [] },
  },
};
const DETECT_SAVED = 8;  // how many widgets it had with noise_draws, which was always 1
const NOISE_DRAWS = 4;  // its place among them

/** Bring one node of a workflow file to the form of today, in place; one that has it already stays as it is. */
export function migrate(node) {
  const values = node.widgets_values;
  if (!Array.isArray(values)) return;
  if (node.type === 'StableKPDetect' && values.length === DETECT_SAVED) {
    values.splice(NOISE_DRAWS, 1);
    node.inputs = node.inputs?.filter((input) => input.widget?.name !== 'noise_draws');
  }
  const choice = CHOICES[node.type];
  if (choice?.saved.length === values.length && choice.own[values[0]]) {
    const [name, ...rest] = choice.saved;
    const all = new Set(Object.values(choice.own).flat());
    const kept = [name, ...choice.own[values[0]], ...rest.filter((widget) => !all.has(widget))];
    node.widgets_values = kept.map((widget) => values[choice.saved.indexOf(widget)]);
    for (const input of node.inputs ?? []) {
      if (all.has(input.widget?.name)) input.name = input.widget.name = `${name}.${input.widget.name}`;
    }
  }
}
