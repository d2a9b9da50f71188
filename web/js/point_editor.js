// Buttons on Edit Keypoints and Label Joints, and what passes between these nodes and the editor.

import { app } from '../../../scripts/app.js';
import { api } from '../../../scripts/api.js';
import { parseEdits } from './editor/state.js';
import { pageLanguage } from './language.js';

const NODES = { StableKPEditKeypoints: 'edits', StableKPLabelJoints: 'labels' };  // node id -> widget with the edits
let texts = null;
let open = null;  // {node, panel} of the editor on the screen

/** Text in the language of the page, from locales/<language>/main.json. */
function t(key, values = {}) {
  const language = pageLanguage();
  const text = texts?.[language]?.stableKeypoints?.[key] ?? texts?.en?.stableKeypoints?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
}

const urlOf = ({ filename, subfolder, type }) => api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
const editsWidget = (node) => node.widgets?.find((widget) => widget.name === NODES[node.comfyClass]);
const offered = (node) => node.stablekpOffered ?? app.nodeOutputs?.[node.id]?.stablekp_editor?.[0];

async function readBatch(node) {
  const answer = await fetch(urlOf(offered(node)));
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

function say(summary, detail, severity = 'warn') {
  const toast = app.extensionManager?.toast;
  if (toast) toast.add({ severity, summary, detail, life: 6000 });
  else window.alert(`${summary}: ${detail}`);
}

function write(node, text) {
  const widget = editsWidget(node);
  widget.value = text;
  widget.callback?.(text);
  relabel(node);
  node.graph?.setDirtyCanvas?.(true, true);
  node.graph?.change?.();
  app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
}

async function openEditor(node) {
  if (open) return;
  if (!offered(node)) { say(node.title, t('runFirst')); return; }
  let batch;
  try {
    batch = await readBatch(node);
  } catch {
    say(node.title, t('gone'));
    return;
  }
  const { Panel } = await import('./editor/panel.js');
  let text = editsWidget(node).value ?? '';
  let problem = '';
  try { parseEdits(text); } catch { [text, problem] = ['', t('unreadable')]; }
  const panel = new Panel({
    batch, text, problem, urlOf, t, title: node.title,
    apply: (edits) => write(node, edits),
    run: (edits) => { write(node, edits); app.queuePrompt(0, 1); },
    closed: () => { open = null; },
  });
  open = { node, panel };
}

/** The button says how many points are edited. */
function relabel(node) {
  let count = 0;
  try {
    for (const entry of parseEdits(editsWidget(node)?.value).values()) count += Object.keys(entry.points).length;
  } catch { /* the node says so when it runs */ }
  const button = node.widgets?.find((widget) => widget.type === 'button');
  if (!button) return;
  const key = node.comfyClass === 'StableKPLabelJoints' ? 'openLabels' : 'openEdits';
  button.label = count ? t(`${key}Some`, { n: count }) : t(key);
  node.graph?.setDirtyCanvas?.(true, true);
}

app.registerExtension({
  name: 'stable_keypoints.point_editor',
  async init() {  // before the first node: nodes of Nodes 2.0 show the label that a button has when they appear
    texts = await api.fetchApi('/i18n').then((answer) => answer.json()).catch(() => null);
  },
  nodeCreated(node) {
    if (!(node.comfyClass in NODES)) return;
    const widget = editsWidget(node);
    if (!widget) return;
    widget.hidden = true;
    (widget.options ??= {}).hidden = true;
    const button = node.addWidget('button', 'open_editor', null, () => openEditor(node), { serialize: false });
    button.serialize = false;
    relabel(node);
    const { onConfigure, onExecuted } = node;
    node.onConfigure = function (...values) {
      onConfigure?.apply(this, values);
      relabel(node);
    };
    node.onExecuted = function (output, ...values) {
      onExecuted?.call(this, output, ...values);
      if (!output?.stablekp_editor) return;
      node.stablekpOffered = output.stablekp_editor[0];
      if (open?.node === node) readBatch(node).then((batch) => open?.panel.setBatch(batch)).catch(() => {});
    };
  },
});
