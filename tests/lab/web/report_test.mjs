// The laboratory's page in headless Chromium: what a reader sees on a phone and on a desk, in light and dark, by
// pointer and keyboard, and without JavaScript. Texts and figures are compared with the JSON of the same run.
// Usage: report_test.mjs ENCHILADA NPM_FOLDER; exits 77 with a reason where there is no Chromium or playwright-core.
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import fs from 'node:fs';
import {createRequire} from 'node:module';
import os from 'node:os';
import path from 'node:path';
import {pathToFileURL} from 'node:url';

const [enchilada, npm] = process.argv.slice(2);
const EXPERIMENTS = ['W9', 'W5']; // cases drawn as bars, and curves that cross

function skip(reason) {
  console.log(`skipped: ${reason}`);
  process.exit(77);
}

function findChromium() {
  for (const name of ['chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome']) {
    for (const folder of (process.env.PATH ?? '').split(':')) {
      const file = path.join(folder, name);
      if (fs.existsSync(file)) return file;
    }
  }
  return skip('no Chromium (apt-get install chromium-headless-shell)');
}

function loadPlaywright() {
  try {
    return createRequire(path.resolve(npm, 'package.json'))('playwright-core');
  } catch {
    return skip('playwright-core has not been fetched by npm; configure again with network');
  }
}

const executablePath = findChromium();
const {chromium} = loadPlaywright();
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'enchilada-report-'));
const [html, json, again] = ['report.html', 'report.json', 'again.html'].map((name) => path.join(folder, name));

function run(...words) {
  const done = spawnSync(enchilada, ['lab', ...words], {encoding: 'utf8'});
  assert.equal(done.status, 0, done.stderr);
}

// Opens the page and counts what must not happen.
async function open(browser, options, prepare = async () => {}) {
  const context = await browser.newContext({offline: true, acceptDownloads: true, ...options});
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => complaints.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (!/^(file|data|blob):/.test(request.url())) complaints.push(`request: ${request.url()}`);
  });
  await prepare(page);
  await page.goto(pathToFileURL(html).href);
  return {page, complaints, close: async () => { assert.deepEqual(complaints, []); await context.close(); }};
}

const texts = (page, selector) => page.locator(selector).allTextContents();
const value = (cells, design, point, metric) => cells.find((c) => c.design === design && c.point === point).values[metric];

// A figure on the page is the value, to the three digits that are shown.
function assertShown(text, wanted, what) {
  assert.ok(Math.abs(Number(text) - wanted) <= Math.abs(wanted) * 0.006 + (Math.abs(wanted) >= 1000 ? 0.5 : 0),
            `${what}: the page has ${text}, the JSON ${wanted}`);
}

async function checkTexts(page, report) {
  for (const one of report.experiments) {
    const at = `section#${one.id}`;
    assert.match((await texts(page, `${at} .verdict-line .verdict`))[0], new RegExp(`${one.verdict}$`));
    assert.match((await texts(page, `nav a[href="#${one.id}"] .verdict`))[0], new RegExp(`${one.verdict}$`));
    assert.ok((await texts(page, `${at} .verdict-line .reason`))[0].includes(one.rule));
    assert.deepEqual(await texts(page, `${at} .prediction`), [one.prediction]);
    assert.deepEqual(await texts(page, `${at} .measured`), [one.measured]);
    assert.deepEqual(await texts(page, `${at} .again code`), [one.command]);
    assert.equal(await page.locator(`${at} table.forecasts tbody tr`).count(), one.forecasts.length);
    const marks = await texts(page, `${at} table.forecasts td:last-child`);
    one.forecasts.forEach((f, i) => assert.equal(marks[i].startsWith('✓'), f.met, `${one.id}: forecast ${i}`));
    await checkMetric(page, one, one.metric);
    checkCsv(await page.locator(`${at} .csv pre`).textContent(), one);
  }
}

async function checkMetric(page, one, metric) {
  const at = `section#${one.id}`;
  assert.deepEqual(await texts(page, `${at} table.values caption`), [metric]);
  const shown = await texts(page, `${at} table.values td`);
  one.designs.forEach((design, d) => one.points.forEach((point, p) => {
    assertShown(shown[d * one.points.length + p], value(one.cells, design, point, metric), `${one.id} ${design} ${point} ${metric}`);
  }));
  const crossings = one.crossovers[metric] ?? [];
  const items = await texts(page, `${at} .crossovers li`);
  assert.equal(items.length, one.point_names.length ? 0 : Math.max(crossings.length, 1));
  crossings.forEach((crossing, i) => assert.ok(items[i].startsWith(crossing.lower_before) && items[i].includes(crossing.lower_after)));
}

function checkCsv(csv, one) {
  const [head, ...rows] = csv.trimEnd().split('\n').map((line) => line.split(','));
  assert.deepEqual(head.slice(0, 2), ['design', 'point']);
  assert.equal(rows.length, one.cells.length);
  rows.forEach((row, i) => {
    const {design, point, values} = one.cells[i];
    assert.deepEqual(row.slice(0, 2), [design, String(point)]);
    const got = Object.fromEntries(head.slice(2).map((metric, m) => [metric, row[m + 2]]).filter(([, v]) => v !== ''));
    assert.deepEqual(Object.fromEntries(Object.entries(got).map(([k, v]) => [k, Number(v)])), values);
  });
}

// How many colours a chart's canvas has, and what it looks like.
const picture = (page, id) => page.evaluate((section) => {
  const canvas = document.querySelector(`#${section} canvas`);
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) colours.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
  return {colours: colours.size, url: canvas.toDataURL()};
}, id);

async function checkLayout(page, width, report) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= width, `the page is ${wide} wide in a window of ${width}`);
  for (const one of report.experiments) {
    assert.ok((await picture(page, one.id)).colours >= 4, `${one.id}: its chart is blank`);
    const box = await page.locator(`#${one.id} .plot`).boundingBox();
    assert.ok(box.width > 250 && box.x >= 0 && box.x + box.width <= width, `${one.id}: its chart is outside`);
  }
}

// WCAG's contrast of texts with the paper: 4.5 and more.
async function checkContrast(page, dark) {
  const contrasts = await page.evaluate(() => {
    const light = (css) => {
      const [r, g, b] = css.match(/\d+/g).map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const probe = document.body.appendChild(document.createElement('i'));
    const ratios = ['ink', 'ink-soft', 'link', 'held', 'refuted', 'depends', 'none'].map((name) => {
      probe.style.color = `var(--${name})`;
      const ink = light(getComputedStyle(probe).color);
      return [name, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
    });
    probe.remove();
    return {paper, ratios};
  });
  assert.equal(contrasts.paper < 0.2, dark);
  for (const [name, ratio] of contrasts.ratios) assert.ok(ratio >= 4.5, `${name} on paper: ${ratio.toFixed(2)}`);
}

async function checkMetricSwitch(page, report) {
  const one = report.experiments.find((e) => e.id === 'W5');
  const before = await picture(page, 'W5');
  await page.locator('#W5 select').selectOption('walk_misses');
  await checkMetric(page, one, 'walk_misses');
  assert.notEqual((await picture(page, 'W5')).url, before.url, 'the chart did not change with the metric');
  await page.locator('#W5 select').selectOption(one.metric);
  assert.equal((await picture(page, 'W5')).url, before.url, 'the chart is not what it was');
  await page.locator('#W5 .controls input').click();
  assert.notEqual((await picture(page, 'W5')).url, before.url, 'the chart did not change with its scale');
  await page.locator('#W5 .controls input').click();
}

async function checkKeyboard(page, report) {
  const one = report.experiments.find((e) => e.id === 'W5');
  const reached = new Set();
  await page.evaluate(() => document.body.focus());
  for (let i = 0; i < 60; ++i) {
    await page.keyboard.press('Tab');
    reached.add(await page.evaluate(() => {
      const at = document.activeElement;
      return `${at.closest('section')?.id ?? ''} ${at.tagName.toLowerCase()} ${at.className}`.trim();
    }));
  }
  for (const stop of ['a skip', 'a', 'W5 select', 'W5 input', 'W5 div plot', 'W5 button', 'W5 div wide', 'W5 summary']) {
    assert.ok(reached.has(stop), `Tab does not reach: ${stop} (it reaches ${[...reached].join('; ')})`);
  }
  await page.locator('#W5 .plot').focus();
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowRight');
  const legend = await texts(page, '#W5 .legend .value');
  one.designs.forEach((d, i) => assertShown(legend[i], value(one.cells, d, one.points[1], one.metric), `legend: ${d}`));
  const before = await picture(page, 'W5');
  await page.locator('#W5 .legend button').nth(2).press('Enter');
  assert.equal(await page.locator('#W5 .legend button').nth(2).getAttribute('aria-pressed'), 'false');
  assert.notEqual((await picture(page, 'W5')).url, before.url, 'a design that was switched off is still drawn');
}

async function checkDownload(page, report) {
  await page.locator('#W9 .csv summary').click();
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#W9 a.button').click()]);
  assert.equal(download.suggestedFilename(), 'W9.csv');
  checkCsv(fs.readFileSync(await download.path(), 'utf8'), report.experiments.find((e) => e.id === 'W9'));
}

async function main() {
  run('experiment', ...EXPERIMENTS, '--html', html, '--json', json);
  run('report', json, '--html', again);
  assert.equal(fs.readFileSync(again, 'utf8'), fs.readFileSync(html, 'utf8'), 'a page made of the JSON is another');
  const report = JSON.parse(fs.readFileSync(json, 'utf8'));
  const browser = await chromium.launch({executablePath, args: ['--no-sandbox']});
  try {
    for (const width of [360, 1440]) {
      for (const colorScheme of ['light', 'dark']) {
        const {page, close} = await open(browser, {viewport: {width, height: 800}, colorScheme});
        await checkTexts(page, report);
        await checkLayout(page, width, report);
        await checkContrast(page, colorScheme === 'dark');
        await checkMetricSwitch(page, report);
        if (colorScheme === 'light') {
          const before = await picture(page, 'W9');
          await page.emulateMedia({colorScheme: 'dark'});
          await page.waitForFunction((old) => document.querySelector('#W9 canvas').toDataURL() !== old, before.url);
          await checkKeyboard(page, report);
          await checkDownload(page, report);
        }
        await close();
        console.log(`ok ${width} pixels wide, ${colorScheme}`);
      }
    }
    const plain = await open(browser, {viewport: {width: 360, height: 800}, javaScriptEnabled: false});
    await checkTexts(plain.page, report);
    assert.equal(await plain.page.locator('figure.chart').first().isVisible(), false);
    await plain.close();
    console.log('ok without JavaScript');
    const svg = await open(browser, {viewport: {width: 360, height: 800}}, (page) =>
      page.addInitScript(() => Object.defineProperty(window, 'uPlot', {get: () => undefined, set: () => {}})));
    assert.equal(await svg.page.locator('canvas').count(), 0);
    assert.equal(await svg.page.locator('#W5 svg polyline').count(), report.experiments.find((e) => e.id === 'W5').designs.length);
    assert.ok(await svg.page.locator('#W9 svg rect').count() >= 18);
    await checkMetric(svg.page, report.experiments.find((e) => e.id === 'W5'), 'walks');
    await svg.close();
    console.log('ok without uPlot');
  } finally {
    await browser.close();
  }
}

try {
  await main();
} finally {
  fs.rmSync(folder, {recursive: true, force: true});
}
