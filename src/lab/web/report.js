// What the page does beyond showing text: charts with a choice of metric, and CSV to copy or to save.
//
// Invariant: the page is whole without this file; nothing here computes a result, all figures are the JSON's.
'use strict';

const report = JSON.parse(document.getElementById('report').textContent);

function make(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

class ExperimentView {
  constructor(experiment, section) {
    this.experiment = experiment;
    this.section = section;
    this.metric = experiment.metric;
    this.hidden = new Set();
    this.index = experiment.points.length - 1;
    this.names = experiment.points.map((p, i) => experiment.point_names[i] ?? String(p));
    this.bars = experiment.points.length < 2 || experiment.point_names.length > 0;
    this.cells = new Map(experiment.cells.map((cell) => [`${cell.design} ${cell.point}`, cell.values]));
    this.build();
    this.show();
  }

  valuesOf(design) {
    return this.experiment.points.map((point) => this.cells.get(`${design} ${point}`)?.[this.metric] ?? null);
  }

  build() {
    this.select = make('select', {});
    const metrics = [...new Set(this.experiment.cells.flatMap((cell) => Object.keys(cell.values)))].sort();
    const zero = (name) => this.experiment.cells.every((cell) => !cell.values[name]);
    for (const [label, wanted] of [['Values', false], ['Zero everywhere', true]]) {
      const group = make('optgroup', {label});
      for (const name of metrics.filter((m) => zero(m) === wanted)) group.append(make('option', {value: name}, name));
      if (group.children.length) this.select.append(group);
    }
    this.select.value = this.metric;
    this.log = make('input', {type: 'checkbox'});
    this.plot = make('div', {class: 'plot', tabindex: '0', role: 'slider', 'aria-valuemin': '0',
                             'aria-valuemax': String(this.experiment.points.length - 1)});
    this.legend = make('ul', {class: 'legend'});
    this.where = make('p', {class: 'where'});
    const figure = this.section.querySelector('figure.chart');
    figure.append(make('div', {class: 'controls'}, make('label', {}, 'Metric ', this.select),
                       make('label', {}, this.log, ' logarithmic')), this.plot, this.where, this.legend);
    figure.hidden = false;
    this.select.addEventListener('change', () => { this.metric = this.select.value; this.show(); });
    this.log.addEventListener('change', () => this.draw());
    this.plot.addEventListener('keydown', (event) => this.key(event));
    this.csvButtons();
  }

  key(event) {
    const last = this.experiment.points.length - 1;
    const to = {ArrowLeft: this.index - 1, ArrowRight: this.index + 1, Home: 0, End: last}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.chart.choose(to);
  }

  csvButtons() {
    const text = this.section.querySelector('.csv pre');
    const copy = make('button', {type: 'button'}, 'Copy');
    const file = new Blob([text.textContent], {type: 'text/csv'});
    const save = make('a', {class: 'button', download: `${this.experiment.id}.csv`, href: URL.createObjectURL(file)}, 'Save as CSV');
    copy.addEventListener('click', async () => {
      getSelection().selectAllChildren(text);
      const done = await navigator.clipboard?.writeText(text.textContent).then(() => true, () => false);
      copy.textContent = done || document.execCommand('copy') ? 'Copied' : 'Selected: copy it by hand';
    });
    text.before(make('p', {class: 'buttons'}, copy, save));
  }

  // Everything that depends on the metric.
  show() {
    const values = this.experiment.designs.flatMap((d) => this.valuesOf(d)).filter((v) => v !== null);
    const positive = values.filter((v) => v > 0);
    this.log.checked = positive.length > 0 && Math.max(...positive) / Math.min(...positive) >= 50;
    this.draw();
    const table = this.section.querySelector('table.values');
    table.caption.textContent = this.metric;
    [...table.tBodies[0].rows].forEach((row, d) => {
      this.valuesOf(this.experiment.designs[d]).forEach((v, i) => { row.cells[i + 1].textContent = figure(v); });
    });
    const crossings = this.experiment.crossovers[this.metric] ?? [];
    this.section.querySelector('.crossovers ul')?.replaceChildren(...crossings.map((one) => make('li', {},
      make('b', {}, one.lower_before), ` is lower up to about ${figure(one.at)}, `, make('b', {}, one.lower_after),
      ' from there on')), ...(crossings.length ? [] : [make('li', {}, 'none: no two curves change places')]));
  }

  draw() {
    this.chart?.remove();
    const designs = this.experiment.designs;
    this.series = designs.map((name, i) => ({name, colour: colour(`--c${i % 12}`), values: this.valuesOf(name),
                                            shown: !this.hidden.has(name)}));
    const forecasts = this.experiment.forecasts
      .filter((f) => f.metric === this.metric && !this.hidden.has(f.design))
      .map((f) => ({series: designs.indexOf(f.design), index: this.experiment.points.indexOf(f.point), low: f.low, high: f.high}))
      .filter((f) => f.series >= 0 && f.index >= 0);
    const spec = {points: this.experiment.points, names: this.names, bars: this.bars, logX: isGeometric(this.experiment.points),
                  logY: this.log.checked, series: this.series, forecasts};
    this.chart = drawChart(this.plot, spec, this.index, (index) => { this.index = index; this.words(); });
    this.drawnAt = this.plot.clientWidth;
    this.hasForecasts = forecasts.length > 0;
    this.words();
  }

  // The chart in words: the legend with the chosen point's values.
  words() {
    const at = `${this.experiment.sweep}: ${this.names[this.index]}`;
    const heard = this.series.map((s) => `${s.name} ${figure(s.values[this.index])}`).join(', ');
    this.plot.setAttribute('aria-label', `${this.metric} by ${this.experiment.sweep}`);
    this.plot.setAttribute('aria-valuenow', String(this.index));
    this.plot.setAttribute('aria-valuetext', `${at}: ${heard}`);
    this.where.textContent = `${this.metric} at ${at}${this.hasForecasts ? '; upright lines: the range that was predicted' : ''}`;
    const focused = [...this.legend.querySelectorAll('button')].indexOf(document.activeElement);
    this.legend.replaceChildren(...this.series.map((s) => {
      const button = make('button', {type: 'button', 'aria-pressed': String(s.shown)}, make('span', {class: 'swatch'}),
                          make('span', {class: 'name'}, s.name), make('span', {class: 'value'}, figure(s.values[this.index])));
      button.firstChild.style.background = s.colour;
      button.addEventListener('click', () => {
        if (!this.hidden.delete(s.name)) this.hidden.add(s.name);
        this.draw();
      });
      return make('li', {}, button);
    }));
    if (focused >= 0) this.legend.querySelectorAll('button')[focused].focus();
  }
}

const views = report.experiments.filter((one) => one.cells.length > 0)
  .map((one) => new ExperimentView(one, document.getElementById(one.id)));
const redrawAll = () => views.forEach((view) => view.draw());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawAll);
new ResizeObserver(() => {
  views.filter((view) => view.plot.clientWidth !== view.drawnAt).forEach((view) => view.draw());
}).observe(document.querySelector('main'));
