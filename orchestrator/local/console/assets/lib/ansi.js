// Colours and styles of terminals (SGR sequences), as elements.

import { html } from "./ui.js";

const SEQUENCE = /\x1b\[([0-9;:]*)m/;
const STYLES = { 1: "bold", 2: "faint", 3: "italic", 4: "underline", 9: "strike" };
const RESET_STYLES = { 22: ["bold", "faint"], 23: ["italic"], 24: ["underline"], 29: ["strike"] };
const LEVELS = [0, 95, 135, 175, 215, 255]; // intensities of red, green and blue in the palette with 256 colours

/** Return a line as text and elements. A line without sequences is returned unchanged. */
export function renderAnsi(line) {
  if (!line.includes("\x1b")) return line;
  const parts = line.split(SEQUENCE); // the list alternates between texts and the parameters of sequences
  const state = { styles: new Set(), color: null, background: null };
  return parts.map((part, index) => {
    if (index % 2 === 0) return part && makeSpan(part, state);
    applyCodes(part.split(/[;:]/).map(Number), state);
    return "";
  });
}

function makeSpan(text, { styles, color, background }) {
  if (!styles.size && !color && !background) return text;
  const classes = [...styles, ...makeClasses("fg", color), ...makeClasses("bg", background)];
  const style = { color: color?.rgb, backgroundColor: background?.rgb };
  return html`<span class=${classes.join(" ")} style=${style}>${text}</span>`;
}

const makeClasses = (prefix, color) => (color?.number === undefined ? [] : [`${prefix}-${color.number}`]);

function applyCodes(codes, state) {
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index];
    if (code === 38 || code === 48) {
      const [color, count] = readColor(codes.slice(index + 1));
      state[code === 38 ? "color" : "background"] = color;
      index += count;
    } else applyCode(code, state);
  }
}

function applyCode(code, state) {
  if (code === 0) Object.assign(state, { styles: new Set(), color: null, background: null });
  else if (STYLES[code]) state.styles = new Set([...state.styles, STYLES[code]]);
  else if (RESET_STYLES[code]) state.styles = new Set([...state.styles].filter((name) => !RESET_STYLES[code].includes(name)));
  else if (code === 39) state.color = null;
  else if (code === 49) state.background = null;
  else applyBasicColor(code, state);
}

/** Codes 30 to 37 and 90 to 97 are text colours, 40 to 47 and 100 to 107 backgrounds. */
function applyBasicColor(code, state) {
  const [tens, number] = [Math.floor(code / 10), code % 10];
  if (number > 7) return;
  if (tens === 3 || tens === 9) state.color = { number: tens === 9 ? number + 8 : number };
  if (tens === 4 || tens === 10) state.background = { number: tens === 10 ? number + 8 : number };
}

/** Return a colour of the palettes with 256 or 16 million colours, and the number of codes that describe it. */
function readColor([palette, first, second, third]) {
  if (palette === 2) return [makeRgb(first, second, third), 4]; // 16 million colours
  if (first < 16) return [{ number: first }, 2];
  if (first >= 232) return [makeRgb(...Array(3).fill(8 + (first - 232) * 10)), 2];
  const cube = first - 16;
  return [makeRgb(...[cube / 36, (cube / 6) % 6, cube % 6].map((level) => LEVELS[Math.floor(level)])), 2];
}

const makeRgb = (...values) => ({ rgb: `rgb(${values.map((value) => Math.min(Number(value) || 0, 255)).join(" ")})` });
