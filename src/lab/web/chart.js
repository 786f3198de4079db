// One chart: curves over a sweep, or groups of bars where points are cases or there is only one.
//
// uPlot draws it; without uPlot the same picture is made of SVG. Both get positions that are already on their
// scale (logarithms, places of bars), and ticks that are already words, so that they cannot disagree.
// Invariant: a zero has no logarithm: on a logarithmic scale it lies at the bottom, and the tick there says 0.
'use strict';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function figure(value) {
  if (value === null || value === undefined) return '–';
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return String(Math.round(value));
  return String(Number(value.toPrecision(3)));
}

// Short enough for an axis on a phone.
function tickText(value) {
  for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(value) >= size) return Number((value / size).toPrecision(3)) + unit;
  }
  return Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}

// Steps that are the same within a quarter make a sweep geometric.
function isGeometric(points) {
  if (points.length < 3 || points.some((p) => p <= 0)) return false;
  const steps = points.slice(1).map((p, i) => p / points[i]);
  return Math.min(...steps) > 1 && Math.max(...steps) / Math.min(...steps) <= 1.25;
}

// A scale: where a value is placed, its ticks [place, words], and the places at both ends. `room` is left below the
// lowest, so that dots do not lie on the words of the other axis.
function linearScale(values, room) {
  const low = Math.min(0, ...values);
  const high = Math.max(...values, low + 1e-9);
  const raw = (high - low) / 4;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((n) => n * unit >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * 1.001; ++i) ticks.push(i * step);
  const span = high - low;
  return {place: (v) => v, ticks: ticks.map((t) => [t, tickText(t)]), base: 0, low: low - span * room, high: high + span * 0.06};
}

function logScale(values, room) {
  const logs = values.filter((v) => v > 0).map(Math.log10);
  const zero = logs.length < values.length;
  const [first, last] = [Math.min(...logs), Math.max(...logs)];
  const decades = last - first;
  const every = Math.max(1, Math.ceil(decades / 5));
  const low = zero ? Math.floor(first + 1e-9) - every : first;
  const ticks = zero ? [[low, '0']] : [];
  for (let e = Math.floor(first); e <= last + 1; e += every) {
    for (const n of decades < 2 ? [1, 2, 5] : [1]) ticks.push([e + Math.log10(n), tickText(n * 10 ** e)]);
  }
  const span = Math.max(last - low, 0.3);
  const [from, to] = [low - span * Math.max(room, 0.02), last + span * 0.06];
  return {place: (v) => (v > 0 ? Math.log10(v) : low), ticks: ticks.filter(([t]) => t >= from && t <= to), base: from, low: from, high: to};
}

// spec: {points, names, bars, logX, logY, series: [{name, colour, values}], forecasts: [{series, index, low, high}]}
function layOut(spec) {
  const shown = spec.series.flatMap((s) => s.values).filter((v) => v !== null);
  for (const f of spec.forecasts) shown.push(...[f.low, f.high].filter((v) => v !== null));
  const room = spec.bars ? 0 : 0.04;
  const y = spec.logY && shown.some((v) => v > 0) ? logScale(shown, room) : linearScale(shown.length ? shown : [0], room);
  const group = spec.series.length + 1;
  const centre = (i) => i * group + (spec.series.length - 1) / 2;
  const x = spec.bars ? centre : (i) => (spec.logX ? Math.log10(spec.points[i]) : spec.points[i]);
  const places = spec.points.map((_, i) => x(i));
  const width = spec.bars ? group : (places[places.length - 1] - places[0]) || 1;
  const pad = spec.bars ? spec.series.length / 2 + 0.5 : width * 0.05;
  return {
    y, places, low: places[0] - pad, high: places[places.length - 1] + pad,
    barAt: (s, i) => (spec.bars ? i * group + s : places[i]),
    xTicks: places.map((p, i) => [p, spec.names[i]]),
  };
}

// Leaves out ticks whose words would run into those before them.
function thin(ticks, toPixels) {
  let free = -Infinity;
  return ticks.filter(([at, text]) => {
    const half = (String(text).length * 7 + 10) / 2;
    if (toPixels(at) - half < free) return false;
    free = toPixels(at) + half;
    return true;
  });
}

// Curves that lie on an earlier one are dashed, so that both colours are seen.
function dashOf(series, at) {
  const alike = series.slice(0, at).filter((other) => other.values.every((v, i) =>
    v === series[at].values[i] || Math.abs(v - series[at].values[i]) <= 0.02 * Math.abs(v)));
  return alike.length ? [6, 6 * alike.length] : [];
}

// What was predicted, on the scales: an upright line over the range, with a foot where it has an end.
function forecastLines(spec, plan) {
  return spec.forecasts.map((f) => {
    const x = plan.barAt(f.series, f.index);
    const low = f.low === null ? plan.y.low : plan.y.place(f.low);
    const high = f.high === null ? plan.y.high : plan.y.place(f.high);
    return {x, low, high, lowEnd: f.low !== null && f.low !== 0, highEnd: f.high !== null,
            colour: spec.bars ? colour('--ink') : spec.series[f.series].colour};
  });
}

function drawWithUplot(box, spec, plan, size, pick) {
  const ink = colour('--ink-soft');
  const grid = {stroke: colour('--rule'), width: 1};
  const font = '12px system-ui, sans-serif';
  const xs = spec.bars ? spec.points.flatMap((_, i) => spec.series.map((_, s) => plan.barAt(s, i))) : plan.places;
  const ys = spec.series.map((one, s) => (spec.bars
    ? spec.points.flatMap((_, i) => spec.series.map((_, t) => (t === s && one.values[i] !== null ? plan.y.place(one.values[i]) : null)))
    : one.values.map((v) => (v === null ? null : plan.y.place(v)))));
  const axisWidth = 16 + 7 * Math.max(...plan.y.ticks.map(([, text]) => text.length));
  const overlay = (u) => {
    const px = (v) => u.valToPos(v, 'x', true);
    const py = (v) => u.valToPos(v, 'y', true);
    const c = u.ctx;
    const scale = devicePixelRatio;
    c.save();
    c.lineWidth = scale;
    c.strokeStyle = ink;
    c.setLineDash([2 * scale, 3 * scale]);
    c.strokeRect(px(plan.places[pick.index]), u.bbox.top, 0, u.bbox.height);
    c.setLineDash([]);
    for (const f of forecastLines(spec, plan)) {
      c.strokeStyle = f.colour;
      c.lineWidth = 2 * scale;
      const end = (y) => { c.moveTo(px(f.x) - 7 * scale, py(y)); c.lineTo(px(f.x) + 7 * scale, py(y)); };
      c.beginPath();
      c.moveTo(px(f.x), py(f.low));
      c.lineTo(px(f.x), py(f.high));
      if (f.lowEnd) end(f.low);
      if (f.highEnd) end(f.high);
      c.stroke();
    }
    c.restore();
  };
  const u = new uPlot({
    width: size.width, height: size.height, legend: {show: false},
    cursor: {drag: {x: false, y: false}, y: false, x: false, points: {show: false}},
    scales: {x: {time: false, range: () => [plan.low, plan.high]}, y: {range: () => [plan.y.low, plan.y.high]}},
    axes: [
      {stroke: ink, grid, ticks: {show: false}, font, size: 30,
       splits: (self) => thin(plan.xTicks, (v) => self.valToPos(v, 'x')).map(([at]) => at),
       values: (_, at) => at.map((v) => plan.xTicks.find(([p]) => p === v)[1])},
      {stroke: ink, grid, ticks: {show: false}, font, size: axisWidth,
       splits: () => plan.y.ticks.map(([at]) => at),
       values: (_, at) => at.map((v) => plan.y.ticks.find(([p]) => p === v)[1])},
    ],
    series: [{}, ...spec.series.map((one, s) => ({
      label: one.name, stroke: one.colour, width: 2, dash: spec.bars ? [] : dashOf(spec.series, s), show: one.shown,
      fill: spec.bars ? one.colour : undefined, fillTo: plan.y.base, points: {show: !spec.bars, size: 7, fill: one.colour},
      paths: spec.bars ? uPlot.paths.bars({size: [0.85, 48]}) : undefined,
    }))],
    hooks: {draw: [overlay]},
  }, [xs, ...ys], box);
  u.over.addEventListener('click', (event) => pick.nearest(u.posToVal(event.offsetX, 'x')));
  return {redraw: () => u.redraw(false, false), remove: () => u.destroy()};
}

function drawWithSvg(box, spec, plan, size, pick) {
  const left = 16 + 7 * Math.max(...plan.y.ticks.map(([, text]) => text.length));
  const bottom = size.height - 30;
  const px = (v) => left + (v - plan.low) / (plan.high - plan.low) * (size.width - left - 10);
  const py = (v) => bottom - (v - plan.y.low) / (plan.y.high - plan.y.low) * (bottom - 10);
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const add = (name, attributes, text) => {
    const node = svg.appendChild(document.createElementNS(svg.namespaceURI, name));
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
  };
  const line = (x1, y1, x2, y2, stroke, width, dash = '') =>
    add('line', {x1, y1, x2, y2, stroke, 'stroke-width': width, 'stroke-dasharray': dash});
  const paint = () => {
    svg.replaceChildren();
    const [ink, rule] = [colour('--ink-soft'), colour('--rule')];
    for (const [at, text] of plan.y.ticks) {
      line(left, py(at), size.width - 10, py(at), rule, 1);
      add('text', {x: left - 8, y: py(at) + 4, fill: ink, 'text-anchor': 'end'}, text);
    }
    for (const [at, text] of thin(plan.xTicks, px)) {
      add('text', {x: px(at), y: size.height - 8, fill: ink, 'text-anchor': 'middle'}, text);
    }
    line(px(plan.places[pick.index]), 10, px(plan.places[pick.index]), bottom, ink, 1, '2 3');
    spec.series.forEach((one, s) => {
      const dots = one.values.map((v, i) => (v === null ? null : [px(plan.barAt(s, i)), py(plan.y.place(v))])).filter(Boolean);
      if (!one.shown) return;
      if (spec.bars) {
        const width = Math.min(48, (px(1) - px(0)) * 0.85);
        for (const [x, y] of dots) add('rect', {x: x - width / 2, y, width, height: Math.max(py(plan.y.base) - y, 0), fill: one.colour});
      } else {
        add('polyline', {points: dots.join(' '), fill: 'none', stroke: one.colour, 'stroke-width': 2,
                         'stroke-dasharray': dashOf(spec.series, s).join(' ')});
        for (const [cx, cy] of dots) add('circle', {cx, cy, r: 3.5, fill: one.colour});
      }
    });
    for (const f of forecastLines(spec, plan)) {
      line(px(f.x), py(f.low), px(f.x), py(f.high), f.colour, 2);
      if (f.lowEnd) line(px(f.x) - 7, py(f.low), px(f.x) + 7, py(f.low), f.colour, 2);
      if (f.highEnd) line(px(f.x) - 7, py(f.high), px(f.x) + 7, py(f.high), f.colour, 2);
    }
  };
  svg.setAttribute('width', size.width);
  svg.setAttribute('height', size.height);
  svg.addEventListener('click', (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    pick.nearest(plan.low + (x - left) / (size.width - left - 10) * (plan.high - plan.low));
  });
  box.append(svg);
  paint();
  return {redraw: paint, remove: () => svg.remove()};
}

// Draws into `box`; picked(index) is called when a point of the sweep is chosen, by pointer or arrow keys.
function drawChart(box, spec, index, picked) {
  const plan = layOut(spec);
  const size = {width: box.clientWidth, height: Math.round(Math.min(360, Math.max(220, box.clientWidth * 0.5)))};
  const pick = {
    index,
    choose(to) {
      pick.index = Math.min(Math.max(to, 0), spec.points.length - 1);
      chart.redraw();
      picked(pick.index);
    },
    nearest(x) {
      const away = plan.places.map((p) => Math.abs(p - x));
      pick.choose(away.indexOf(Math.min(...away)));
    },
  };
  const chart = (window.uPlot ? drawWithUplot : drawWithSvg)(box, spec, plan, size, pick);
  return {choose: pick.choose, remove: chart.remove};
}
