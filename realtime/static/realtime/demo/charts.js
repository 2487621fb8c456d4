/** Drawings of the demo page: SVG, made by hand. */

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} name  @param {Record<string, string | number>} attributes */
function shape(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}

/**
 * A window of time that moves left. Every publication is a bar where it was *published*, so what is recovered later
 * fills the very gap that the lost connection tore.
 */
export class Wire {
  /** @param {SVGSVGElement} svg  @param {number} seconds  Width of the window. */
  constructor(svg, seconds) {
    this.svg = svg;
    this.seconds = seconds;
    this.tape = svg.appendChild(shape("g", {}));
    this.gaps = this.tape.appendChild(shape("g", { class: "gaps" }));
    this.bars = this.tape.appendChild(shape("g", { class: "bars" }));
    /** @type {{ at: number, level: number, element: SVGElement, label?: SVGElement }[]} */ this.marks = [];
    /** @type {{ from: number, to: number, element: SVGElement }[]} */ this.spans = [];
    this.skew = Infinity;
    this.origin = Date.now();
    this.addPattern();
    new ResizeObserver(() => this.resize()).observe(svg);
    this.resize();
    this.run();
  }

  addPattern() {
    const pattern = shape("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    pattern.append(shape("line", { x1: 0, y1: 0, x2: 0, y2: 7 }));
    const defs = shape("defs", {});
    defs.append(pattern);
    this.svg.prepend(defs);
  }

  /** The publisher's clock now; its difference to ours is the smallest delay seen. */
  get now() {
    return Date.now() - (Number.isFinite(this.skew) ? this.skew : 0);
  }

  /**
   * @param {{ at: number, level: number, offset: number, kind: "live" | "recovered" | "past" }} mark
   *   `at` in ms of the publisher's clock, `level` from 0 to 1.
   */
  add({ at, level, offset, kind }) {
    if (kind === "live") this.skew = Math.min(this.skew, Date.now() - at);
    const element = shape("rect", { class: kind, rx: 1.5 });
    element.dataset.offset = String(offset);
    element.append(shape("title", {}));
    element.firstChild.textContent = `offset ${offset}, ${Math.round(level * 100)} %, ${kind}`;
    this.bars.append(element);
    const label = offset % 10 === 0 ? this.bars.appendChild(shape("text", { "text-anchor": "middle" })) : undefined;
    if (label) label.textContent = `${offset}`;
    const mark = { at, level, element, label };
    this.marks.push(mark);
    this.place(mark);
    this.prune();
  }

  openGap() {
    const gap = { from: this.now, to: 0, element: this.gaps.appendChild(shape("rect", { y: 0 })) };
    this.spans.push(gap);
  }

  closeGap() {
    const gap = this.spans.at(-1);
    if (gap && !gap.to) gap.to = this.now;
  }

  clear() {
    for (const { element, label } of this.marks.splice(0)) {
      element.remove();
      label?.remove();
    }
  }

  resize() {
    const { width, height } = this.svg.getBoundingClientRect();
    this.width = width || 900;
    this.height = height || 180;
    this.step = this.width / this.seconds; // pixels a second
    for (const mark of this.marks) this.place(mark);
  }

  /** @param {number} at  Pixels on the tape, which is as long as the page is open. */
  x(at) {
    return ((at - this.origin) / 1000) * this.step;
  }

  /** @param {{ at: number, level: number, element: SVGElement, label?: SVGElement }} mark */
  place({ at, level, element, label }) {
    const floor = this.height - 18; // the offsets stand below
    const height = Math.max(3, level * (floor - 4));
    const width = Math.max(2, this.step * 0.62);
    element.setAttribute("x", String(this.x(at) - width / 2));
    element.setAttribute("y", String(floor - height));
    element.setAttribute("width", String(width));
    element.setAttribute("height", String(height));
    label?.setAttribute("x", String(this.x(at)));
    label?.setAttribute("y", String(this.height - 3));
  }

  prune() {
    const oldest = this.now - (this.seconds + 10) * 1000;
    while (this.marks[0]?.at < oldest) {
      const { element, label } = this.marks.shift();
      element.remove();
      label?.remove();
    }
    while (this.spans[0]?.to && this.spans[0].to < oldest) this.spans.shift().element.remove();
  }

  draw() {
    const { now } = this;
    // The newest bar stands a little inside the right edge.
    this.tape.setAttribute("transform", `translate(${this.width - this.step * 1.5 - this.x(now)} 0)`);
    for (const { from, to, element } of this.spans) {
      element.setAttribute("x", String(this.x(from)));
      element.setAttribute("width", String(Math.max(0, this.x(to || now) - this.x(from))));
      element.setAttribute("height", String(this.height - 18));
    }
  }

  run() {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
    let last = 0;
    const frame = (/** @type {number} */ time) => {
      if (time - last >= (isCalm.matches ? 1000 : 33)) {
        last = time;
        this.draw();
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }
}

/** The last values as a line over its area. */
export class Sparkline {
  /** @param {SVGSVGElement} svg  @param {{ length?: number, max?: number }} [options]  No `max`: the highest of the values. */
  constructor(svg, { length = 60, max = 0 } = {}) {
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    this.length = length;
    this.max = max;
    /** @type {number[]} */ this.values = [];
    this.area = svg.appendChild(shape("path", { class: "area" }));
    this.line = svg.appendChild(shape("path", { class: "line", "vector-effect": "non-scaling-stroke" }));
  }

  /** @param {number} value */
  add(value) {
    this.values.push(value);
    if (this.values.length > this.length) this.values.shift();
    const top = Math.max(this.max, ...(this.max ? [] : this.values), 1e-9);
    const left = this.length - this.values.length;
    const points = this.values.map((one, index) => {
      const x = ((left + index) / (this.length - 1)) * 100;
      return `${x.toFixed(2)} ${(28 - Math.min(1, one / top) * 26).toFixed(2)}`;
    });
    const path = `M${points.join("L")}`;
    const start = (left / (this.length - 1)) * 100;
    this.line.setAttribute("d", path);
    this.area.setAttribute("d", `${path}L100 30L${start.toFixed(2)} 30Z`);
  }
}
