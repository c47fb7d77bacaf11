// Draws SVG. Each chart has a table with the same figures beside it, so to assistive technology it is one image with a name.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** The next of 1, 2, 2.5, 5, 10, … from which about three lines of a grid come. */
function step(most) {
  const rough = most / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** Columns over minutes: points are {label: `14:05`, value, title}, all in order. `width` is that of the place, in CSS pixels. */
export function columns(points, name, width) {
  const [height, left, bottom, top] = [220, 46, 22, 8];
  const most = Math.max(...points.map((point) => point.value), 0);
  const every = most > 0 ? step(most) : 1;
  const ceiling = Math.max(Math.ceil(most / every), 1) * every;
  const [inner, tall] = [width - left - 2, height - top - bottom];
  const y = (value) => top + tall * (1 - value / ceiling);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": name });
  for (let value = 0; value <= ceiling + every / 2; value += every) {
    chart.append(
      svg("line", { class: "grid", x1: left, x2: width - 2, y1: y(value), y2: y(value) }),
      svg("text", { class: "axis", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, short.format(value)),
    );
  }
  const pitch = inner / Math.max(points.length, 1);
  const thick = Math.max(Math.min(pitch * 0.76, 26), 1);
  points.forEach((point, at) => {
    const x = left + pitch * at + (pitch - thick) / 2;
    const bar = { class: "column", x, width: thick, y: y(point.value), height: Math.max(y(0) - y(point.value), 0), rx: Math.min(thick / 4, 2) };
    chart.append(svg("rect", bar, svg("title", {}, point.title)));
  });
  // As many labels as fit, at round minutes.
  const least = points.length / Math.max(Math.floor(inner / 64), 1);
  const apart = [1, 2, 5, 10, 15, 30].find((one) => one >= least) ?? 60;
  points.forEach((point, at) => {
    const x = left + pitch * (at + 0.5);
    if (Number(point.label.slice(3)) % apart !== 0 || x > width - 18) return;
    chart.append(svg("text", { class: "axis", x, y: height - 4, "text-anchor": "middle" }, point.label));
  });
  return chart;
}

/** A line without axes, from values in order. */
export function spark(values) {
  const most = Math.max(...values, 1e-9);
  const x = (at) => (values.length > 1 ? (at / (values.length - 1)) * 100 : 0);
  const points = values.map((value, at) => `${x(at).toFixed(2)},${(22 - (value / most) * 20).toFixed(2)}`);
  const line = svg("polyline", { class: "spark", points: points.join(" ") });
  return svg("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, line);
}
