// The tab "positions": a table of positional encodings, its columns, its dot products, and the clock hands of its pairs.
export const texts = {
  en: {
    title: "Positions",
    intro: "Each row is one position, each column one dimension. Move a slider: tinymae computes the table again.",
    layout: "Layout", interleaved: "interleaved: sin, cos, sin, cos (the paper, articles C, D and E)",
    halves: "halves: all sines, then all cosines (Tensor2Tensor, article D's first figure)",
    article_a: "article A's get_positional_encoding", article_a_normalised: "article A's, each row divided by its norm",
    learned: "learned, at the start of training: noise",
    length: "Length T", width: "Width D", base: "Base", trained: "Training length", place: "Position p", offset: "Offset k",
    table: "The table", tableHelp: "Point at a number, or use the arrow keys. A click or Enter chooses the position.",
    cell: (row, column, kind, value) => `position ${row}, column ${column} (${kind}): ${value}`,
    noRow: (row) => `position ${row}: this table has no row for it`,
    repeats: (kind, wavelength) => `${kind}, repeats every ${wavelength} positions`, learnedKind: "learned",
    curves: "Columns", which: "Columns, separated by commas", curve: (column, value) => `column ${column}: ${value} at p`,
    dots: "Dot products of all positions", dotsHelp: "If each diagonal has one colour, only the distance between two positions counts.",
    product: (a, b, value) => `PE(${a}) · PE(${b}) = ${value}`, noProduct: (a, b) => `PE(${a}) · PE(${b}): one row is missing`,
    distance: "Dot product with PE(p), by distance", distanceAxis: "distance q - p", positionAxis: "position",
    clocks: "Clock hands: p, and p + k dashed",
    turn: (columns, turn) => `columns ${columns}: the formula turns by ${turn} rad`,
    noTurn: (columns) => `columns ${columns}: no common frequency`,
    everywhere: (measured, least, most) => `here ${measured}, over all positions ${least} to ${most}`, none: "nothing to measure",
    same: "Every pair turns by one angle, whatever p is: PE(p + k) is one rotation of PE(p) for all p.",
    notSame: "The angle depends on p: no rotation of these pairs takes every row to the row k positions further on.",
    beyond: "Beyond the training", trainedLine: "training length",
    seen: (p, trained) => `Position ${p} occurred in training, which had sequences of ${trained}.`,
    unseen: (p, trained) => `Position ${p} did not occur in training, which had positions 0 to ${trained - 1}.`,
    exists: (row, distance) => `The formula has a row for it. The nearest row of the training is that of position ${row}, at a ` +
      `distance of ${distance}. A row that exists is not yet one that the model can use: see lesson 6.`,
    missing: "A learned table ends there: this position has no row, and no training has ever set one. tinymae's answer:",
  },
  zh: {
    title: "位置编码",
    intro: "每一行是一个位置，每一列是一个维度。拖动滑块，tinymae 会重新计算整张表。",
    layout: "排列方式", interleaved: "交错：sin、cos、sin、cos（原论文，文章 C、D、E）",
    halves: "前后两半：先全部 sin，再全部 cos（Tensor2Tensor，文章 D 的第一张图）",
    article_a: "文章 A 的 get_positional_encoding", article_a_normalised: "文章 A 的写法，每行再除以自己的范数",
    learned: "可学习的位置编码，训练开始时：随机噪声",
    length: "长度 T", width: "维度 D", base: "底数", trained: "训练长度", place: "位置 p", offset: "偏移 k",
    table: "编码表", tableHelp: "把鼠标移到数字上，或用方向键移动；单击或按回车选定位置 p。",
    cell: (row, column, kind, value) => `位置 ${row}，第 ${column} 列（${kind}）：${value}`,
    noRow: (row) => `位置 ${row}：表里没有这一行`,
    repeats: (kind, wavelength) => `${kind}，每 ${wavelength} 个位置重复一次`, learnedKind: "可学习",
    curves: "各列的曲线", which: "要画的列，用逗号分隔", curve: (column, value) => `第 ${column} 列：p 处为 ${value}`,
    dots: "任意两个位置的点积", dotsHelp: "如果每条对角线上颜色一致，点积就只取决于两个位置的距离。",
    product: (a, b, value) => `PE(${a}) · PE(${b}) = ${value}`, noProduct: (a, b) => `PE(${a}) · PE(${b})：其中一行不存在`,
    distance: "与 PE(p) 的点积随距离的变化", distanceAxis: "距离 q - p", positionAxis: "位置",
    clocks: "时钟指针：实线是 p，虚线是 p + k",
    turn: (columns, turn) => `第 ${columns} 列：按公式转过 ${turn} 弧度`,
    noTurn: (columns) => `第 ${columns} 列：没有共同的频率`,
    everywhere: (measured, least, most) => `此处 ${measured}，所有位置上 ${least} 到 ${most}`, none: "无法测量",
    same: "无论 p 取何值，每一对列转过的角度都相同：PE(p + k) 由 PE(p) 经同一个旋转得到。",
    notSame: "角度随 p 变化：这些列对没有一个统一的旋转，能把每一行都变成其后第 k 行。",
    beyond: "超出训练长度", trainedLine: "训练长度",
    seen: (p, trained) => `位置 ${p} 在训练中出现过，训练序列长 ${trained}。`,
    unseen: (p, trained) => `位置 ${p} 在训练中没有出现过，训练只有位置 0 到 ${trained - 1}。`,
    exists: (row, distance) => `公式仍能算出这一行。训练中出现过的行里，与它最近的是位置 ${row}，距离 ${distance}。` +
      "能算出这一行，不等于模型会用它：见第 6 课。",
    missing: "可学习的表到此为止：这个位置没有对应的行，训练也从未更新过它。tinymae 的回答：",
  },
};

const LAYOUTS = ["interleaved", "halves", "article_a", "article_a_normalised", "learned"];
const COLOURS = ["var(--main)", "var(--other)", "light-dark(#3a7d44, #8fd19e)", "light-dark(#8a6d1a, #e3c65b)"];
const chosen = {layout: "interleaved", length: 60, width: 32, exponent: 4, trained: 20, place: 10, offset: 3, columns: [0, 1, 8, 20]};
let redraw = () => {};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());       // a canvas does not follow CSS

// An element with attributes, listeners ("onclick") and children; SVG elements with their namespace.
export function element(tag, attributes = {}, ...children) {
  const isSvg = ["svg", "path", "line", "circle", "text", "g", "polyline", "title"].includes(tag);
  const made = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// A function that runs `work`, an async function that asks and returns what draws the answer. While one runs, only the newest
// call waits, and the answer to an older question is dropped.
export function latest(work) {
  let running = false, waiting = false;
  return async function run() {
    if (running) { waiting = true; return; }
    running = true;
    try {
      const draw = await work();
      if (!waiting) draw();
    } catch (error) {
      console.debug(error.message);                             // the frame of the page has shown it
    } finally {
      running = false;
      if (waiting) { waiting = false; run(); }
    }
  };
}

// Build the tab inside "root"; "say" translates a key of texts, "ask(name, arguments)" resolves to the answer of tinymae.
export function show(root, say, ask) {
  let answer = null, here = null;
  const settings = () => ({length: chosen.length, width: chosen.width, base: Math.round(10 ** chosen.exponent),
    layout: chosen.layout, trained: chosen.trained});
  const askAll = latest(async () => {
    const [table, position] = [await ask("table", settings()),
      await ask("position", {...settings(), place: chosen.place, offset: chosen.offset})];
    return () => { answer = table; here = position; draw(); };
  });
  const askHere = latest(async () => {
    const position = await ask("position", {...settings(), place: chosen.place, offset: chosen.offset});
    return () => { here = position; draw(); };
  });
  const controls = sliders(say, askAll, askHere);
  const parts = {};
  for (const name of ["table", "curves", "clocks", "distance", "dots", "beyond"]) {
    parts[name] = element("section", {class: `positions-${name}`, "aria-label": say(name)});
  }
  const choosePlace = (place) => { chosen.place = place; controls.update(); askHere(); };
  const table = heatmap(say("table"), choosePlace), dots = heatmap(say("dots"), choosePlace);
  const which = columnChoice(say, () => draw());
  const curves = element("div"), clocks = element("div"), distance = element("div"), beyond = element("div", {"aria-live": "polite"});
  fill(parts.table, say("table"), say("tableHelp"), table.canvas, table.readout);
  fill(parts.curves, say("curves"), "", which, curves);
  fill(parts.clocks, say("clocks"), "", clocks);
  fill(parts.distance, say("distance"), "", distance);
  fill(parts.dots, say("dots"), say("dotsHelp"), dots.canvas, dots.readout);
  fill(parts.beyond, say("beyond"), "", beyond);
  root.replaceChildren(element("p", {}, say("intro")), controls.root,
    element("div", {class: "positions-grid"}, ...Object.values(parts)));

  function draw() {
    if (!answer || !root.isConnected) return;
    const marks = {trained: chosen.trained, rows: [chosen.place, chosen.place + chosen.offset]};
    table.draw(answer.values, marks, (row, column) => cellText(say, answer, row, column));
    dots.draw(answer.dots, {...marks, square: true}, (a, b) => answer.dots[a][b] === null ? say("noProduct")(a, b)
      : say("product")(a, b, answer.dots[a][b]));
    curves.replaceChildren(...columnCurves(say, answer));
    clocks.replaceChildren(...clockHands(say, here));
    distance.replaceChildren(...distanceCurve(say, answer));
    beyond.replaceChildren(...beyondText(say, here));
  }
  redraw = draw;
  askAll();
}

function fill(section, title, help, ...children) {
  section.replaceChildren(element("h2", {}, title), ...(help ? [element("p", {class: "help"}, help)] : []), ...children);
}

// The select and the sliders. The table depends on the first four; the last two only choose rows of it.
function sliders(say, askAll, askHere) {
  const inputs = {};
  const root = element("div", {class: "positions-controls"});
  const select = element("select", {onchange: () => { chosen.layout = select.value; askAll(); }},
    ...LAYOUTS.map((name) => element("option", {value: name, selected: name === chosen.layout}, say(name))));
  root.append(element("label", {class: "wide"}, element("span", {}, say("layout")), select));
  const add = (key, text, min, max, step, after, shown = String) => {
    const output = element("output");
    const input = element("input", {type: "range", min, max: max(), step, oninput: () => {
      chosen[key] = Number(input.value);
      update();
      after();
    }});
    inputs[key] = {input, output, max, shown};
    root.append(element("label", {}, element("span", {}, text, " ", output), input));
  };
  add("length", say("length"), 2, () => 128, 1, askAll);
  add("width", say("width"), 2, () => 128, 2, askAll);
  add("exponent", say("base"), 1, () => 6, 0.5, askAll, (exponent) => Math.round(10 ** exponent));
  add("trained", say("trained"), 1, () => chosen.length, 1, askAll);
  add("place", say("place"), 0, () => chosen.length - 1, 1, askHere);
  add("offset", say("offset"), 0, () => chosen.length - 1 - chosen.place, 1, askHere);
  function update() {
    for (const [key, {input, output, max, shown}] of Object.entries(inputs)) {
      chosen[key] = Math.min(chosen[key], max());               // the limits move with the length and the position
      input.max = max();
      input.value = chosen[key];
      output.textContent = shown(chosen[key]);
    }
  }
  update();
  return {root, update};
}

function columnChoice(say, changed) {
  const input = element("input", {type: "text", inputmode: "numeric", value: chosen.columns.join(", "), size: 14, oninput: () => {
    chosen.columns = input.value.split(/[\s,，、]+/).filter((part) => /^\d+$/.test(part)).map(Number).slice(0, COLOURS.length);
    changed();
  }});
  return element("label", {}, say("which"), " ", input);
}

function cellText(say, answer, row, column) {
  if (answer.values[row] === null) return say("noRow")(row);
  const {kind, wavelength} = answer.columns[column];
  const text = kind === "learned" ? say("learnedKind") : say("repeats")(kind, wavelength);
  return say("cell")(row, column, text, answer.values[row][column]);
}

// ---- heatmaps ----------------------------------------------------------------------------------------------------------

// A canvas with a readout; draw(rows, marks, text) paints numbers (null: none), text(row, column) describes one.
function heatmap(label, choose) {
  const canvas = element("canvas", {tabindex: 0, role: "application", "aria-label": label, width: 640, height: 480});
  const readout = element("p", {class: "readout", role: "status"});
  let rows = [], marks = {}, text = () => "", cursor = null;
  const size = () => [rows.length, marks.square ? rows.length : (rows.find((row) => row) || [0]).length];
  const read = (at) => { cursor = at; paint(); readout.textContent = text(...at); };
  const under = (event) => {
    const [height, width] = size(), box = canvas.getBoundingClientRect();
    const inside = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    return [inside((event.clientY - box.top) / box.height, height), inside((event.clientX - box.left) / box.width, width)];
  };
  canvas.addEventListener("pointermove", (event) => rows.length && read(under(event)));
  canvas.addEventListener("click", (event) => rows.length && choose(under(event)[0]));
  canvas.addEventListener("keydown", (event) => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step && event.key !== "Enter") return;
    event.preventDefault();
    const at = cursor || [0, 0];
    if (!step) { choose(at[0]); return; }
    read(at.map((number, axis) => Math.min(size()[axis] - 1, Math.max(0, number + step[axis]))));
  });
  function paint() {
    const [height, width] = size(), pen = canvas.getContext("2d");
    if (marks.square) canvas.height = canvas.width;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(painted(rows, height, width), 0, 0, canvas.width, canvas.height);
    const down = canvas.height / height, across = canvas.width / width;
    pen.strokeStyle = colour("var(--text)");
    pen.lineWidth = 2;
    pen.setLineDash([8, 4]);
    pen.beginPath();                                            // below the last row of the training
    pen.moveTo(0, marks.trained * down);
    pen.lineTo(canvas.width, marks.trained * down);
    pen.stroke();
    pen.setLineDash([]);
    for (const row of marks.rows) pen.strokeRect(1, row * down, canvas.width - 2, Math.max(3, down));
    if (cursor && document.activeElement === canvas) pen.strokeRect(cursor[1] * across, cursor[0] * down, across, down);
  }
  return {canvas, readout, draw(newRows, newMarks, newText) {
    [rows, marks, text] = [newRows, newMarks, newText];
    if (cursor && cursor.some((number, axis) => number >= size()[axis])) cursor = null;
    paint();
    readout.textContent = cursor ? text(...cursor) : "";
  }};
}

// One pixel for each number: from the colour of negative numbers over the background to that of positive ones; grey for none.
function painted(rows, height, width) {
  const small = new OffscreenCanvas(width, height), pen = small.getContext("2d"), image = pen.createImageData(width, height);
  const [high, low, zero, none] = ["var(--main)", "var(--other)", "var(--back)", "var(--line)"].map(channels);
  const flat = rows.flatMap((row) => row || Array(width).fill(null));
  const largest = Math.max(...flat.map((value) => Math.abs(value || 0))) || 1;
  flat.forEach((value, i) => {
    const end = value > 0 ? high : low, share = Math.abs(value) / largest;
    const mixed = value === null ? none : zero.map((from, c) => from + share * (end[c] - from));
    image.data.set([...mixed, 255], 4 * i);
  });
  pen.putImageData(image, 0, 0);
  return small;
}

// What a CSS colour is in this theme.
function colour(css) {
  const probe = document.body.appendChild(element("span", {style: `color: ${css}`}));
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const channels = (css) => colour(css).match(/[\d.]+/g).slice(0, 3).map(Number);

// ---- curves and clocks -------------------------------------------------------------------------------------------------

// Lines of [x, y] in a frame; upright marks [{x, text, dashed}]; y is null where there is no number.
function plot(label, axis, lines, marks) {
  const [width, height, left, right, top, bottom] = [560, 252, 56, 8, 34, 34];
  const known = lines.flatMap(({points}) => points).filter(([, y]) => y !== null);
  const xs = lines.flatMap(({points}) => points.map(([x]) => x)), ys = known.map(([, y]) => y);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(0, ...ys), Math.max(0, ...ys)];
  const at = (x) => left + (width - left - right) * (x - x0) / (x1 - x0 || 1);
  const up = (y) => height - bottom - (height - top - bottom) * (y - y0) / (y1 - y0 || 1);
  const svg = element("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "plot"});
  for (const y of [y0, 0, y1]) {
    svg.append(element("line", {x1: left, x2: width - right, y1: up(y), y2: up(y), class: "grid"}),
      element("text", {x: left - 4, y: up(y) + 4, "text-anchor": "end"}, short(y)));
  }
  for (const [x, anchor] of [[x0, "start"], [x1, "end"]]) {
    svg.append(element("text", {x: at(x), y: height - bottom + 14, "text-anchor": anchor}, String(x)));
  }
  svg.append(element("text", {x: (left + width) / 2, y: height - 6, "text-anchor": "middle"}, axis));
  for (const [i, {x, text, dashed}] of marks.entries()) {      // one below the other, for they may be near
    svg.append(element("line", {x1: at(x), x2: at(x), y1: top, y2: height - bottom, class: dashed ? "mark dashed" : "mark"}),
      element("text", {x: at(x), y: 13 + 14 * i, "text-anchor": at(x) > width / 2 ? "end" : "start"}, text));
  }
  for (const {points, stroke} of lines) {
    const seen = points.filter(([, y]) => y !== null);
    svg.append(element("polyline", {points: seen.map(([x, y]) => `${at(x)},${up(y)}`).join(" "), class: "curve",
      style: `stroke: ${stroke}`}));
  }
  return svg;
}

const short = (number) => Number(number.toPrecision(3)).toString();

function columnCurves(say, answer) {
  const columns = chosen.columns.filter((column) => column < chosen.width);
  if (!columns.length) return [];
  const lines = columns.map((column, i) => ({stroke: COLOURS[i],
    points: answer.values.map((row, p) => [p, row && row[column]])}));
  const marks = [{x: chosen.trained, text: say("trainedLine"), dashed: true}, {x: chosen.place, text: "p"}];
  const legend = columns.map((column, i) => element("li", {style: `--key: ${COLOURS[i]}`},
    say("curve")(column, answer.values[chosen.place]?.[column] ?? "–")));
  return [plot(say("curves"), say("positionAxis"), lines, marks), element("ul", {class: "legend"}, ...legend)];
}

function distanceCurve(say, answer) {
  const p = chosen.place, q = p + chosen.offset, products = answer.dots[p];
  const points = products.map((product, other) => [other - p, product]);
  const sentence = products[q] === null ? say("noProduct")(p, q) : say("product")(p, q, products[q]);
  const marks = [{x: chosen.trained - p, text: say("trainedLine"), dashed: true}, {x: q - p, text: "p + k"}];
  return [plot(say("distance"), say("distanceAxis"), [{points, stroke: COLOURS[0]}], marks),
    element("p", {class: "readout"}, sentence)];
}

// A few pairs, from the fastest to the slowest; hands are as long as their pair of numbers, the longest fills its clock.
function clockHands(say, here) {
  const count = Math.min(6, here.pairs.length);
  const pairs = Array.from({length: count}, (_, i) => here.pairs[Math.round(i * (here.pairs.length - 1) / Math.max(1, count - 1))]);
  const longest = Math.max(...pairs.flatMap(({hand, later}) => [hand, later]).filter(Boolean).map((h) => Math.hypot(...h))) || 1;
  const clocks = pairs.map((pair) => {
    const columns = pair.columns.join(", ");
    const measured = pair.measured === null ? say("none") : say("everywhere")(pair.measured, pair.least, pair.most);
    const title = pair.turn === null ? say("noTurn")(columns) : say("turn")(columns, pair.turn);
    return element("figure", {class: "clock"},
      element("svg", {viewBox: "-110 -110 220 220", role: "img", "aria-label": `${title}; ${measured}`},
        element("circle", {r: 100, class: "face"}), ...hand(pair.later, longest, "later"), ...hand(pair.hand, longest, "now")),
      element("figcaption", {}, title, element("br"), measured));
  });
  const sentence = here.rotation === null ? "" : say(here.rotation ? "same" : "notSame");
  return [element("div", {class: "clocks"}, ...clocks), element("p", {}, sentence)];
}

// From the centre to (cos, sin), with up as positive.
function hand(end, longest, name) {
  if (!end) return [];
  const [x, y] = [100 * end[0] / longest, -100 * end[1] / longest];
  return [element("line", {x1: 0, y1: 0, x2: x, y2: y, class: `hand ${name}`}),
    element("circle", {cx: x, cy: y, r: 5, class: `tip ${name}`})];
}

function beyondText(say, here) {
  const {place, trained} = chosen;
  if (place < trained) return [element("p", {}, say("seen")(place, trained))];
  const known = here.nearest ? element("p", {}, say("exists")(here.nearest.place, here.nearest.distance))
    : element("p", {}, say("missing"), element("br"), element("code", {}, here.refused));
  return [element("p", {}, say("unseen")(place, trained)), known];
}
