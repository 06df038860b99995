/** A line over time as a small picture. */

const SVG = "http://www.w3.org/2000/svg";

/** Values that came one after the other, at most `most` of them, drawn from the left to the right. */
export class Plot {
  constructor(label, most = 120) {
    this.most = most;
    this.values = [];
    this.line = document.createElementNS(SVG, "path");
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("class", "plot");
    this.element.setAttribute("viewBox", `0 0 ${most} 100`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("role", "img");
    this.element.setAttribute("aria-label", label);
    this.element.append(this.line);
  }

  add(value) {
    this.values = [...this.values, value].slice(-this.most);
    const highest = Math.max(1, ...this.values);
    const begin = this.most - this.values.length;
    const points = this.values.map((one, place) => `${begin + place},${98 - (96 * one) / highest}`);
    this.line.setAttribute("d", `M${points.join("L")}`);
  }
}
