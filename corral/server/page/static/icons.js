/** The page's icons, as lines on a square of 24 by 24, drawn in the colour of the text around them. */

const LINES = {
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  clip: "M20 11.5 12 19.5a5 5 0 0 1-7-7l8.5-8.5a3.4 3.4 0 0 1 4.8 4.8L10 17a1.7 1.7 0 0 1-2.4-2.4l7.4-7.4",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  done: "M5 13l5 5L20 7",
  file: "M6 3h8l5 5v13H6zM14 3v5h5",
  gear: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.2 2.2M16.2 16.2l2.2 2.2M5.6 18.4l2.2-2.2M16.2 7.8l2.2-2.2",
  left: "M14 6l-6 6 6 6",
  menu: "M4 6h16M4 12h16M4 18h16",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  pencil: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  right: "M10 6l6 6-6 6",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  tokens: "M3 12c2-5 4-5 6 0s4 5 6 0 4-5 6 0",
  tool: "M14 6a4 4 0 0 1 6-1l-3 3 1 2 2-.5A4 4 0 0 1 14 13l-7 7-3-3 7-7a4 4 0 0 1 3-4z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
};

const SVG = "http://www.w3.org/2000/svg";

/** An icon that screen readers pass over; what it means stands in a label. */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", LINES[name]);
  picture.setAttribute("class", "icon");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("aria-hidden", "true");
  picture.append(line);
  return picture;
}
