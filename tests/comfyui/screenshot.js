// Opens a template from Browse Templates in the real web UI with headless Chromium, runs it and takes pictures.
//
//   npm install playwright-core
//   node screenshot.js PORT OUT_PREFIX "1 Try it now" [CHROMIUM]
//
// Stops where the page shows our nodes otherwise than the template's file says: other widget values, or larger.
// Writes OUT_PREFIX_templates.png, _loaded.png, _running.png (after two minutes) and _done.png.
const fs = require('fs');
const path = require('path');
const { chromium } = require('playwright-core');

const [port, out, template, browserPath = '/usr/bin/chromium'] = process.argv.slice(2);
const PATIENT = { timeout: 150000, force: true };
const QUIET = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

function fitGraph() {
  const canvas = window.app.canvas;
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (const node of window.app.graph._nodes) {
    low[0] = Math.min(low[0], node.pos[0]);
    low[1] = Math.min(low[1], node.pos[1] - 30);
    high[0] = Math.max(high[0], node.pos[0] + node.size[0]);
    high[1] = Math.max(high[1], node.pos[1] + node.size[1]);
  }
  const scale = Math.min(1800 / (high[0] - low[0]), 1000 / (high[1] - low[1]));
  canvas.ds.scale = scale;
  canvas.ds.offset[0] = -low[0] + 75 / scale;
  canvas.ds.offset[1] = -low[1] + 100 / scale;
  canvas.setDirty(true, true);
}

function differences(file) {
  const shown = window.app.graph.serialize().nodes;
  return file.nodes.filter((node) => node.type.startsWith('StableKP')).flatMap((node) => {
    const there = shown.find((other) => other.id === node.id);
    const same = JSON.stringify(there.widgets_values ?? []) === JSON.stringify(node.widgets_values ?? []);
    const fits = there.size[0] <= node.size[0] && there.size[1] <= node.size[1];
    return same && fits ? [] : [`${node.type}: ${JSON.stringify(there.widgets_values)}, ${there.size}`];
  });
}

async function queue() {
  await window.app.extensionManager.setting.set('Comfy.Minimap.Visible', false);
  window.finished = null;
  for (const kind of ['execution_success', 'execution_error', 'execution_interrupted']) {
    window.app.api.addEventListener(kind, (event) => { window.finished = [kind, event.detail]; });
  }
  return window.app.queuePrompt(0, 1);
}

async function main() {
  const browser = await chromium.launch({ executablePath: browserPath, headless: true, args: QUIET });
  const page = await browser.newPage({ viewport: { width: 1900, height: 1180 } });
  await page.goto(`http://127.0.0.1:${port}/`, { waitUntil: 'domcontentloaded' });
  await page.waitForFunction(() => window.app?.graph && document.querySelector('canvas'), null, { timeout: 150000 });
  await page.waitForTimeout(6000);
  // The list of templates opens by itself on a first visit.
  if (!(await page.locator('text=stable-keypoints').count())) {
    await page.locator('text=Templates').first().click(PATIENT);
    await page.waitForTimeout(3000);
  }
  await page.locator('text=stable-keypoints').last().click(PATIENT);
  await page.waitForTimeout(3000);
  await page.screenshot({ path: `${out}_templates.png` });
  await page.locator(`text=${template}`).last().click(PATIENT);
  await page.waitForTimeout(4000);
  const file = path.join(__dirname, '..', '..', 'example_workflows', `${template}.json`);
  const wrong = await page.evaluate(differences, JSON.parse(fs.readFileSync(file)));
  if (wrong.length) throw new Error(`the page differs from the template:\n${wrong.join('\n')}`);
  await page.evaluate(fitGraph);
  await page.waitForTimeout(1500);
  await page.screenshot({ path: `${out}_loaded.png` });
  await page.evaluate(queue);
  const start = Date.now();
  let finished = null, shown = false;
  while (!finished && Date.now() - start < 3600e3) {
    await page.waitForTimeout(1000);
    finished = await page.evaluate(() => window.finished);
    if (!shown && Date.now() - start > 120e3) {
      shown = true;
      await page.screenshot({ path: `${out}_running.png` });
    }
  }
  console.log(finished ? finished[0] : 'still running', `${((Date.now() - start) / 1000).toFixed(0)} s`);
  await page.waitForTimeout(5000);
  await page.screenshot({ path: `${out}_done.png` });
  await browser.close();
  process.exitCode = finished && finished[0] === 'execution_success' ? 0 : 1;
}

main();
